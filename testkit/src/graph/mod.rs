//! A fake Meta Graph API, as far as the Facebook Business Extension (FBE) and setting up an app need it.
//!
//! - Every call needs an access token that the platform knows, in the query, the form, the JSON body or as a bearer. A
//!   missing one is error 104, an unknown or invalidated one 190, one of another business 200 or 100/33.
//! - Errors come with HTTP 400 whatever they are, in the body of [`GraphError`].
//! - An `appsecret_proof` that is sent must fit token and app secret; the token exchange requires one.
//! - Answers carry `x-app-usage`, those about a business manager or catalog `x-business-use-case-usage`.
//! - A business that is not installed has `{"data":[]}` as its installs: no error.
//! - Feature configuration: see [`configuration`]; catalogs: see [`catalog`]; pages, tokens and subscriptions: [`setup`].
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use testkit::graph::{Edge, FakeGraph, Install, Options, faults};
//!
//! let graph = FakeGraph::start(Options::new("app-id", "app-secret")).await?;
//! graph.set_install(Install::recorded("shop-42", "EAAB-user"));
//! graph.script(Edge::AccessToken, faults::rate_limited(4));
//! // … run the code under test with `graph.url()` …
//! assert_eq!(graph.issued_tokens("shop-42").len(), 1);
//! # Ok(())
//! # }
//! ```

pub mod catalog;
pub mod configuration;
mod error;
pub mod faults;
mod install;
pub mod messages;
mod options;
pub mod page;
mod parameters;
mod platform;
pub mod setup;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use self::catalog::Batching;
pub use self::catalog::{Catalog, FoundOut, MAX_REQUESTS};
pub use self::error::GraphError;
pub use self::install::Install;
pub use self::messages::{Reach, SentMessage};
pub use self::options::{Call, Edge, KeepItems, Options};
pub use self::page::{Application, Page, Person, Subscription};
use self::platform::Platform;
pub use self::platform::TokenKind;
use crate::fault::{Fault, Script};
use crate::history::{History, Refusals, Shared};
use crate::server::Server;

/// The handle. Dropping it stops the server and, unless switched off, asserts that it was drained.
pub struct FakeGraph {
    server: Server,
    shared: Arc<Shared<Platform>>,
}

impl FakeGraph {
    /// Starts serving.
    ///
    /// # Errors
    ///
    /// The address cannot be bound.
    pub async fn start(options: Options) -> io::Result<Self> {
        let address = options.address;
        let partner = options.partner_token.clone();
        let mut platform = Platform {
            tokens: HashMap::new(),
            businesses: BTreeMap::new(),
            catalogs: HashMap::new(),
            batching: Batching {
                keep: options.keep_items,
                ceiling: usize::MAX,
                polls_until_finished: 0,
            },
            usage: (1, 0),
            install_pages: 1,
            script: Script::new(),
            calls: History::new(options.history),
            refusals: Refusals::default(),
            tokens_issued: 0,
            reach: HashMap::new(),
            sent: Vec::new(),
            token_life: None,
            application: Application::default(),
            pages: BTreeMap::new(),
            people: HashMap::new(),
            page_scoped: HashMap::new(),
            options,
        };
        if let Some(token) = &partner {
            platform.partner_token(token);
        }
        let shared = Arc::new(Shared::new(platform));
        let model = shared.clone();
        let server = Server::start(address, move |request| {
            let model = model.clone();
            async move {
                // Before the lock: the callback may ask this very fake.
                let handshake = setup::handshake(&request).await;
                let effect = model.lock().receive(&request, &handshake);
                model.ring();
                effect
            }
        })
        .await?;
        Ok(Self { server, shared })
    }

    /// The value for `GRAPH_API_URL`.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Installs the app for a business, or installs it anew: its token becomes valid, its catalog exists, and its
    /// features are on.
    pub fn set_install(&self, install: Install) {
        self.shared.lock().set_install(install);
    }

    /// Changes what the installs API says of a business, behind the webhooks' back; `None` uninstalls. Tokens stay
    /// valid. Of several Business Managers the one that installed last is meant.
    pub fn change_install(&self, business: &str, data: Option<Value>) {
        if let Some(business) = self.shared.lock().newest(business) {
            business.install = data;
        }
    }

    /// The app is removed from a business under this Business Manager.
    pub fn remove_install(&self, business: &str, manager: &str) {
        let mut platform = self.shared.lock();
        let all = platform.businesses.get_mut(business).into_iter().flatten();
        for one in all.filter(|one| one.manager.as_deref() == Some(manager)) {
            one.install = None;
        }
    }

    /// What the installs API says of a business.
    #[must_use]
    pub fn install(&self, business: &str) -> Option<Value> {
        self.shared.lock().newest(business)?.install.clone()
    }

    /// The feature configuration of a business.
    #[must_use]
    pub fn configuration(&self, business: &str) -> Option<Value> {
        Some(self.shared.lock().newest(business)?.configuration.clone())
    }

    /// Replaces the feature configuration of a business.
    pub fn set_configuration(&self, business: &str, configuration: Value) {
        if let Some(business) = self.shared.lock().newest(business) {
            business.configuration = configuration;
        }
    }

    /// Switches a feature of a business off, as a person does in Meta's settings.
    pub fn switch_off(&self, business: &str, feature: &str) {
        if let Some(business) = self.shared.lock().newest(business)
            && let Some(features) = business.configuration.as_object_mut()
        {
            features.insert(feature.to_owned(), serde_json::json!({"enabled": false}));
            features.remove(&format!("{feature}s"));
        }
    }

    /// System-user tokens that are issued from now on end after so many seconds.
    pub fn limit_tokens(&self, seconds: u64) {
        self.shared.lock().token_life = Some(seconds);
    }

    /// Makes a token known; for `None` it may act for every business.
    pub fn add_token(&self, token: &str, kind: TokenKind, business: Option<&str>) {
        self.shared.lock().add_token(token, kind, business);
    }

    /// Makes a page that people have roles on.
    pub fn add_page(&self, page: Page) {
        self.shared.lock().pages.insert(page.id.clone(), page);
    }

    /// Changes a page, if there is one of this id.
    pub fn change_page(&self, id: &str, change: impl FnOnce(&mut Page)) {
        if let Some(page) = self.shared.lock().pages.get_mut(id) {
            change(page);
        }
    }

    /// A page as it stands.
    #[must_use]
    pub fn page(&self, id: &str) -> Option<Page> {
        self.shared.lock().pages.get(id).cloned()
    }

    /// Makes a user or system-user token known, and whose it is.
    pub fn add_person(&self, token: &str, person: Person) {
        self.shared.lock().people.insert(token.to_owned(), person);
    }

    /// Lets the app know a person by `user_id`, who is `psid` on a page.
    pub fn add_person_on_page(&self, user_id: &str, page: &str, psid: &str) {
        let mut platform = self.shared.lock();
        let ids = platform.page_scoped.entry(user_id.to_owned()).or_default();
        ids.insert(page.to_owned(), psid.to_owned());
    }

    /// Changes the app at Meta.
    pub fn change_app(&self, change: impl FnOnce(&mut Application)) {
        change(&mut self.shared.lock().application);
    }

    /// The app as it stands at Meta.
    #[must_use]
    pub fn application(&self) -> Application {
        self.shared.lock().application.clone()
    }

    /// From now on this token gets 190 with the subcode, such as 460 (password changed).
    pub fn invalidate_token(&self, token: &str, subcode: i64) {
        if let Some(token) = self.shared.lock().tokens.get_mut(token) {
            token.invalid = Some(subcode);
        }
    }

    /// The app's secret was reset: proofs that were made with the old one are wrong from now on.
    pub fn reset_app_secret(&self, secret: &str) {
        self.shared.lock().options.app_secret = secret.into();
    }

    /// From now on the installs API answers this many pages, with the install on the last.
    pub fn page_installs(&self, pages: usize) {
        self.shared.lock().install_pages = pages;
    }

    /// System-user tokens that a business's token was exchanged for, oldest first.
    #[must_use]
    pub fn issued_tokens(&self, business: &str) -> Vec<String> {
        let platform = self.shared.lock();
        let all = platform.businesses.get(business).into_iter().flatten();
        all.flat_map(|one| one.issued.clone()).collect()
    }

    /// Changes whether a person can be written to.
    pub fn set_reach(&self, scoped_id: &str, reach: Reach) {
        self.shared.lock().reach.insert(scoped_id.to_owned(), reach);
    }

    /// The messages that were taken, oldest first.
    #[must_use]
    pub fn sent_messages(&self) -> Vec<SentMessage> {
        self.shared.lock().sent.clone()
    }

    /// Makes a catalog that belongs to no install.
    pub fn add_catalog(&self, id: &str) {
        self.shared.lock().catalogs.entry(id.to_owned()).or_default();
    }

    /// A catalog as it stands.
    #[must_use]
    pub fn catalog(&self, id: &str) -> Option<Catalog> {
        Some(self.shared.lock().catalogs.get(id)?.catalog.clone())
    }

    /// How many items a catalog has; 0 if there is no such catalog.
    #[must_use]
    pub fn item_count(&self, id: &str) -> usize {
        self.shared
            .lock()
            .catalogs
            .get(id)
            .map_or(0, |store| store.catalog.count)
    }

    /// From now on this item is refused with this message.
    pub fn refuse_item(&self, catalog: &str, retailer_id: &str, message: &str, found_out: FoundOut) {
        let mut platform = self.shared.lock();
        let store = platform.catalogs.entry(catalog.to_owned()).or_default();
        store
            .bad_items
            .insert(retailer_id.to_owned(), (message.to_owned(), found_out));
    }

    /// From now on larger batches get error 1, "Please reduce the amount of data".
    pub fn limit_batches(&self, requests: usize) {
        self.shared.lock().batching.ceiling = requests;
    }

    /// How often the status of a new batch is `started` before it is `finished`; at first never.
    pub fn finish_batches_after(&self, polls: u32) {
        self.shared.lock().batching.polls_until_finished = polls;
    }

    /// What the usage headers say from now on: percent of the limit, and minutes until calls are taken again.
    pub fn set_usage(&self, percent: u32, minutes: u32) {
        self.shared.lock().usage = (percent, minutes);
    }

    /// Queues a fault for the next call of `edge` that has none before it.
    pub fn script(&self, edge: Edge, fault: Fault) {
        self.shared.lock().script.push(edge, fault);
    }

    /// Every call meets `fault` from now on, until [`Self::end_outage`].
    pub fn begin_outage(&self, fault: Fault) {
        self.shared.lock().script.begin_outage(fault, None);
    }

    /// Every call meets `fault` for `duration`.
    pub fn down_for(&self, duration: Duration, fault: Fault) {
        self.shared.lock().script.begin_outage(fault, Some(duration));
    }

    /// Ends what [`Self::begin_outage`] or [`Self::down_for`] began.
    pub fn end_outage(&self) {
        self.shared.lock().script.end_outage();
    }

    /// Forgets what was scripted and has not been met.
    pub fn clear_script(&self) {
        self.shared.lock().script.clear();
    }

    /// Calls in order of arrival, also the refused ones.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.iter().cloned().collect()
    }

    /// Calls after the first `seen`, in order of arrival, as far as they are remembered.
    #[must_use]
    pub fn calls_since(&self, seen: usize) -> Vec<Call> {
        self.shared.lock().calls.since(seen)
    }

    /// Calls of one edge.
    #[must_use]
    pub fn calls_of(&self, edge: Edge) -> Vec<Call> {
        self.shared
            .lock()
            .calls
            .iter()
            .filter(|call| call.edge == Some(edge))
            .cloned()
            .collect()
    }

    /// How many calls there were, also forgotten ones.
    #[must_use]
    pub fn call_count(&self) -> usize {
        self.shared.lock().calls.total()
    }

    /// Forgets the calls so far; installs, tokens and catalogs stay.
    pub fn forget_calls(&self) {
        self.shared.lock().calls.clear();
    }

    /// Waits until `condition` holds, looking after every call. Says whether it did within `timeout`.
    pub async fn until(&self, timeout: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        self.shared.until(timeout, || condition(self)).await
    }

    /// Takes the calls that were refused without being scripted, for a test that expects them. A call with an
    /// invalidated token is none of them.
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
        let platform = self.shared.lock();
        let (left, refused) = (platform.script.left(), platform.refusals.all().to_vec());
        drop(platform);
        assert!(
            left.is_empty(),
            "fake Graph: scripted faults that no call met: {left:?}"
        );
        assert!(
            refused.is_empty(),
            "fake Graph: unexpected refusals: {refused:#?}"
        );
    }
}

impl Drop for FakeGraph {
    fn drop(&mut self) {
        // A second panic would abort the process and hide the first.
        if self.shared.lock().options.drained && !std::thread::panicking() {
            self.assert_drained();
        }
    }
}
