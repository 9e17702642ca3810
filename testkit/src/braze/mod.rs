//! A fake Braze: its REST API in front of a model of a workspace.
//!
//! What it models is in the modules of the endpoints: [`track`], [`identify`], [`trigger`], `canvas`. Common to all:
//!
//! - The key stands behind `Authorization: Bearer `. An unknown one is 401 (and Braze's message repeats the key, so
//!   the message must never be logged), a known one without the endpoint's permission 403.
//! - A path with a slash at its end is 403; another content type than JSON 415; a body over 4 MB 413.
//! - Every answer carries `x-ratelimit-*` headers; success is 201.
//!
//! Every success means *queued*. The model applies at once, which the real service does not promise: two requests
//! about one person may overtake each other there, so tests should look at [`FakeBraze::requests`] for that.
//! Not modelled either: event times in the future (Braze takes the present), frequency caps, subscription states.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use testkit::braze::{Endpoint, FakeBraze, Options, faults};
//!
//! let braze = FakeBraze::start(Options::new("key").trigger_api_key("trigger-key")).await?;
//! braze.script(Endpoint::Track, faults::unavailable(503));
//! // … run the code under test with `braze.url()` …
//! assert_eq!(braze.profile("user-1").unwrap().attribute("messenger_id").unwrap(), "24");
//! # Ok(())
//! # }
//! ```

mod attribute;
mod campaign;
mod canvas;
mod canvas_send;
mod delete;
pub mod faults;
mod identifier;
pub mod identify;
mod input;
mod model;
mod options;
mod profile;
mod recipient;
#[cfg(test)]
mod tests;
pub mod track;
pub mod trigger;
mod workspace;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use self::campaign::Campaigns;
pub use self::campaign::{Campaign, SentMessage};
use self::canvas::Canvases;
pub use self::canvas::{Canvas, CanvasEntry};
pub use self::faults::RateLimit;
pub use self::input::{InputArray, Rejection};
use self::model::{Model, Poison, Step};
pub use self::options::{Endpoint, Options, Request};
use self::profile::Profiles;
pub use self::profile::{CustomEvent, Identifier, Profile};
use crate::fault::{Fault, Script};
use crate::history::{History, Refusals, Shared};
use crate::server::Server;

/// The handle. Dropping it stops the server and, unless switched off, asserts that it was drained.
pub struct FakeBraze {
    server: Server,
    shared: Arc<Shared<Model>>,
}

impl FakeBraze {
    /// Starts serving.
    ///
    /// # Errors
    ///
    /// The address cannot be bound.
    pub async fn start(options: Options) -> io::Result<Self> {
        let address = options.address;
        let shared = Arc::new(Shared::new(Model {
            profiles: Profiles::default(),
            campaigns: Campaigns::new(options.campaigns.clone()),
            canvases: Canvases::default(),
            sent: Vec::new(),
            data_points: 0,
            script: Script::new(),
            poison: None,
            requests: History::new(options.history),
            refusals: Refusals::default(),
            processed: 0,
            options,
        }));
        let model = shared.clone();
        let server = Server::start(address, move |request| {
            let model = model.clone();
            async move {
                let effect = model.lock().receive(&request);
                model.ring();
                effect
            }
        })
        .await?;
        Ok(Self { server, shared })
    }

    /// The value for `BRAZE_REST_ENDPOINT`.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Queues a fault for the next request to `endpoint` that has none before it.
    pub fn script(&self, endpoint: Endpoint, fault: Fault) {
        self.shared.lock().script.push(endpoint, Step::Fault(fault));
    }

    /// Queues a 201 for the next request to `/users/track` in which these objects are refused.
    pub fn script_rejections(&self, rejections: impl IntoIterator<Item = Rejection>) {
        let step = Step::Reject(rejections.into_iter().collect());
        self.shared.lock().script.push(Endpoint::Track, step);
    }

    /// Every request meets `fault` from now on, until [`Self::end_outage`].
    pub fn begin_outage(&self, fault: Fault) {
        self.shared.lock().script.begin_outage(Step::Fault(fault), None);
    }

    /// Every request meets `fault` for `duration`.
    pub fn down_for(&self, duration: Duration, fault: Fault) {
        self.shared
            .lock()
            .script
            .begin_outage(Step::Fault(fault), Some(duration));
    }

    /// Ends what [`Self::begin_outage`] or [`Self::down_for`] began.
    pub fn end_outage(&self) {
        self.shared.lock().script.end_outage();
    }

    /// From now on one object whose JSON contains `text` makes its whole request to `/users/track` or `/users/identify` a
    /// 400 that does not say which object it was.
    pub fn poison(&self, text: &str) {
        self.shared.lock().poison = Some(Poison {
            text: text.to_owned(),
            met: false,
        });
    }

    /// Forgets what was scripted and has not been met.
    pub fn clear_script(&self) {
        let mut model = self.shared.lock();
        model.script.clear();
        model.poison = None;
    }

    /// The key is another from now on, and the old one unknown.
    pub fn rotate_api_key(&self, key: &str) {
        self.shared.lock().options.api_key = key.into();
    }

    /// Adds or changes a campaign. From the first one on, only added campaigns exist.
    pub fn set_campaign(&self, campaign: Campaign) {
        self.shared.lock().campaigns.set(campaign);
    }

    /// Adds or changes a Canvas. From the first one on, only added Canvases exist.
    pub fn set_canvas(&self, canvas: Canvas) {
        self.shared.lock().canvases.set(canvas);
    }

    /// Makes the profile of a known user with these attributes, as if the brand had done so before.
    pub fn add_user(&self, external_id: &str, attributes: &Value) {
        let mut model = self.shared.lock();
        let id = model
            .profiles
            .find_or_create(&Identifier::ExternalId(external_id.to_owned()));
        let profile = id.and_then(|id| model.profiles.get_mut(id));
        if let (Some(profile), Some(attributes)) = (profile, attributes.as_object()) {
            attribute::apply(&mut profile.attributes, attributes);
        }
    }

    /// The profile with this external id.
    #[must_use]
    pub fn profile(&self, external_id: &str) -> Option<Profile> {
        self.find(&Identifier::ExternalId(external_id.to_owned()))
    }

    /// The profile with this alias, known user or not.
    #[must_use]
    pub fn alias_profile(&self, label: &str, name: &str) -> Option<Profile> {
        self.find(&Identifier::Alias {
            label: label.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The profile that this identifier names.
    #[must_use]
    pub fn find(&self, identifier: &Identifier) -> Option<Profile> {
        let model = self.shared.lock();
        model.profiles.get(model.profiles.find(identifier)?).cloned()
    }

    /// All profiles in order of creation.
    #[must_use]
    pub fn profiles(&self) -> Vec<Profile> {
        self.shared.lock().profiles.all().cloned().collect()
    }

    /// All custom events with the profile they are on, profile by profile.
    #[must_use]
    pub fn events(&self) -> Vec<(Profile, CustomEvent)> {
        let of = |profile: Profile| {
            let events = profile.events.clone();
            events.into_iter().map(move |event| (profile.clone(), event))
        };
        self.profiles().into_iter().flat_map(of).collect()
    }

    /// Messages that people got, in order.
    #[must_use]
    pub fn sent_messages(&self) -> Vec<SentMessage> {
        self.shared.lock().sent.clone()
    }

    /// Who entered a Canvas, in order.
    #[must_use]
    pub fn canvas_entries(&self) -> Vec<CanvasEntry> {
        self.shared.lock().canvases.entries.clone()
    }

    /// What Braze would bill: every attribute, event and purchase that was accepted, changed or not.
    #[must_use]
    pub fn data_points(&self) -> usize {
        self.shared.lock().data_points
    }

    /// Requests in order of arrival, also the refused ones.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.iter().cloned().collect()
    }

    /// Requests after the first `seen`, in order of arrival, as far as they are remembered.
    #[must_use]
    pub fn requests_since(&self, seen: usize) -> Vec<Request> {
        self.shared.lock().requests.since(seen)
    }

    /// Requests to one endpoint.
    #[must_use]
    pub fn requests_to(&self, endpoint: Endpoint) -> Vec<Request> {
        let model = self.shared.lock();
        model
            .requests
            .iter()
            .filter(|request| request.path == endpoint.path())
            .cloned()
            .collect()
    }

    /// Requests to `/users/track`.
    #[must_use]
    pub fn track_requests(&self) -> Vec<Request> {
        self.requests_to(Endpoint::Track)
    }

    /// How many requests there were, also forgotten ones.
    #[must_use]
    pub fn request_count(&self) -> usize {
        self.shared.lock().requests.total()
    }

    /// Forgets the requests so far; profiles and messages stay.
    pub fn forget_requests(&self) {
        self.shared.lock().requests.clear();
    }

    /// Waits until `condition` holds, looking after every request. Says whether it did within `timeout`.
    pub async fn until(&self, timeout: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        self.shared.until(timeout, || condition(self)).await
    }

    /// Takes the requests and objects that were refused without being scripted, for a test that expects them.
    #[must_use]
    pub fn take_refusals(&self) -> Vec<String> {
        self.shared.lock().refusals.take()
    }

    /// Panics if a scripted fault was never met, or if anything was refused that no test asked for.
    ///
    /// # Panics
    ///
    /// As said; with the list of what is left.
    pub fn assert_drained(&self) {
        let model = self.shared.lock();
        let (left, refused) = (model.script.left(), model.refusals.all().to_vec());
        let poison_met = model.poison.as_ref().is_none_or(|poison| poison.met);
        drop(model);
        assert!(
            left.is_empty(),
            "fake Braze: scripted faults that no request met: {left:?}"
        );
        assert!(poison_met, "fake Braze: no request held the poisoned object");
        assert!(
            refused.is_empty(),
            "fake Braze: unexpected refusals: {refused:#?}"
        );
    }
}

impl Drop for FakeBraze {
    fn drop(&mut self) {
        // A second panic would abort the process and hide the first.
        if self.shared.lock().options.drained && !std::thread::panicking() {
            self.assert_drained();
        }
    }
}
