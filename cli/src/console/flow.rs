//! What came in and what followed from it, as far as it is remembered.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use shared::outbox::{Entry, Kind, Status};
use tokio::sync::watch;

/// Requests that are remembered. A page shows a tenth of them.
pub(crate) const KEPT: usize = 1_000;
/// A body is remembered up to here, in bytes.
pub(crate) const LARGEST_BODY: usize = 64 << 10;
/// Events of one request that are remembered. Meta sends up to 1,000.
pub(crate) const EVENTS: usize = 100;
/// Calls and outbox items of one request that are remembered.
const FOLLOWING: usize = 200;
/// What follows at once is looked for this long.
const YOUNG: Duration = Duration::from_secs(5);
/// What waits for longer is looked at less often, down to this.
const SELDOM: Duration = Duration::from_secs(5);

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// Meta, for a page.
    Messenger,
    /// Meta, for an Instagram account.
    Instagram,
    /// Meta, for an install.
    Fbe,
    /// Braze, with a message from WhatsApp.
    Whatsapp,
    /// Braze, with a message to somebody on Messenger or Instagram.
    Send,
    /// The external system, with a late reply.
    Reply,
    /// Meta, setting a webhook up.
    Handshake,
    /// The partner's platform, reading installs.
    Partner,
    /// Nobody: the bridge itself, by its schedule.
    Schedule,
    /// Another route.
    Other,
}

/// What proved who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Meta's signature over the bytes.
    Signature,
    /// A bearer token.
    Token,
    /// It was wrong or missing.
    Wrong,
    /// None was asked for.
    None,
}

/// What one request or change is about: a row of a table, and the subject of its outbox items.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// A contact's key.
    Contact(String),
    /// A business.
    Install(String),
    /// A conversation.
    Conversation(String),
}

/// Something that was read out of a request.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) name: String,
    /// Whom it is about, if anybody.
    pub(crate) subject: Option<Subject>,
    /// The text, if there is one.
    pub(crate) said: Option<String>,
    pub(crate) at: Timestamp,
}

/// A row that was decided on.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) subject: Subject,
    pub(crate) is_new: bool,
    /// Name, before, after. Empty: nothing changed.
    pub(crate) fields: Vec<(String, Option<String>, Option<String>)>,
}

/// An outbox item.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) entry: Entry,
    /// Whether it was pending when it was last looked at.
    was_open: bool,
}

/// A third party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Party {
    Braze,
    Graph,
    ExternalSystem,
    Partner,
}

/// A call that left.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) to: Party,
    pub(crate) path: String,
    /// `None`: the connection was closed.
    pub(crate) status: Option<u16>,
    /// In words, one line for each object.
    pub(crate) said: Vec<String>,
    pub(crate) body: Value,
    pub(crate) at: Timestamp,
    /// Whom it may be about.
    pub(crate) names: HashSet<String>,
}

/// One request, and what followed.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    /// Its address.
    pub(crate) number: u64,
    /// By which who posted it finds it.
    pub(crate) tag: Option<String>,
    pub(crate) at: Timestamp,
    /// `None`: it is in hand.
    pub(crate) took: Option<Duration>,
    pub(crate) origin: Origin,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) bytes: usize,
    /// At most [`LARGEST_BODY`] of it.
    pub(crate) body: String,
    /// `None`: in hand, or never answered.
    pub(crate) status: Option<u16>,
    pub(crate) answer: String,
    pub(crate) proof: Proof,
    /// At most [`EVENTS`].
    pub(crate) events: Vec<Event>,
    pub(crate) event_count: usize,
    /// Reasons, of what was not understood.
    pub(crate) quarantined: Vec<&'static str>,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) changes: Vec<Change>,
    pub(crate) items: Vec<Item>,
    pub(crate) calls: Vec<Call>,
    /// Other names of its subjects: users, ids without their kind.
    pub(crate) names: HashSet<String>,
    /// On the machine's own clock, which nobody sets.
    begun: Instant,
    looked: Instant,
}

/// How a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It or what follows from it is under way.
    Working,
    /// All is done.
    Done,
    /// Nothing follows from it.
    Nothing,
    /// Something is planned for later.
    Later,
    /// Something failed and is tried again.
    Failing,
    /// Something was kept that was not understood.
    Kept,
    /// It was not let in.
    Refused,
    /// It failed, or something was given up.
    Failed,
}

impl Subject {
    /// The subject of its outbox items.
    pub(crate) fn outbox(&self) -> String {
        match self {
            Self::Install(id) => shared::fbe::plan::subject(id),
            Self::Contact(id) | Self::Conversation(id) => id.clone(),
        }
    }

    /// Of an outbox item's subject.
    pub(crate) fn of_outbox(subject: &str) -> Option<Self> {
        if let Some(business) = shared::fbe::plan::business_of(subject) {
            return Some(Self::Install(business.to_owned()));
        }
        if subject.starts_with("messenger#") || subject.starts_with("instagram#") {
            return Some(Self::Contact(subject.to_owned()));
        }
        let conversation = shared::whatsapp::message::ConversationId::parse(subject)?;
        Some(Self::Conversation(conversation.as_str().to_owned()))
    }

    /// What third parties call it.
    fn name(&self) -> &str {
        match self {
            Self::Contact(id) | Self::Install(id) => id.rsplit('#').next().unwrap_or(id),
            Self::Conversation(id) => id.split_once(':').map_or(id, |(_, id)| id),
        }
    }
}

impl Party {
    /// Whether items of this kind go there.
    fn takes(self, kind: Kind) -> bool {
        let to = match kind {
            Kind::ContactSync | Kind::ContactEvent | Kind::RelayReply | Kind::FbeNotify | Kind::Erase => {
                Self::Braze
            }
            Kind::RelayMessage => Self::ExternalSystem,
            Kind::FbePartnerNotify => Self::Partner,
            Kind::MessengerSend
            | Kind::FbeExchangeToken
            | Kind::FbeReconcile
            | Kind::FbeReconcileManager
            | Kind::FbeCatalogPush
            | Kind::HealthCheck => Self::Graph,
        };
        to == self
    }
}

impl Flow {
    /// A request that has just come.
    pub(crate) fn new(origin: Origin, at: Timestamp) -> Self {
        let now = Instant::now();
        Self {
            number: 0,
            tag: None,
            at,
            took: None,
            origin,
            method: String::new(),
            path: String::new(),
            bytes: 0,
            body: String::new(),
            status: None,
            answer: String::new(),
            proof: Proof::None,
            events: Vec::new(),
            event_count: 0,
            quarantined: Vec::new(),
            subjects: Vec::new(),
            changes: Vec::new(),
            items: Vec::new(),
            calls: Vec::new(),
            names: HashSet::new(),
            begun: now,
            looked: now,
        }
    }

    pub(crate) fn standing(&self, now: Timestamp) -> Standing {
        let of = |status: Status| self.items.iter().filter(move |item| item.entry.status == status);
        let is_later = |item: &Item| item.entry.not_before.is_some_and(|at| at > now);
        match self.status {
            None if self.origin == Origin::Schedule => {
                let failed = self
                    .calls
                    .iter()
                    .any(|call| call.status.is_none_or(|status| status >= 400));
                return if failed { Standing::Failed } else { Standing::Done };
            }
            None if self.took.is_none() => return Standing::Working,
            Some(401 | 403) => return Standing::Refused,
            None | Some(400..) => return Standing::Failed,
            Some(_) => {}
        }
        if of(Status::Dead).next().is_some() {
            Standing::Failed
        } else if of(Status::Pending).any(|item| item.entry.attempts > 0 || item.entry.reason.is_some()) {
            Standing::Failing
        } else if !self.quarantined.is_empty() {
            Standing::Kept
        } else if of(Status::Pending).any(|item| !is_later(item)) {
            Standing::Working
        } else if of(Status::Pending).next().is_some() {
            Standing::Later
        } else if self.items.is_empty() && self.changes.iter().all(|change| change.fields.is_empty()) {
            Standing::Nothing
        } else {
            Standing::Done
        }
    }

    fn is_open(&self) -> bool {
        self.items.iter().any(|item| item.entry.status == Status::Pending)
    }

    /// Whether it is time to look for what followed.
    fn wants_a_look(&self) -> bool {
        let age = self.begun.elapsed();
        let young = age < YOUNG;
        young || (self.is_open() && self.looked.elapsed() > (age / 20).min(SELDOM))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.subjects
            .iter()
            .map(Subject::name)
            .chain(self.names.iter().map(String::as_str))
    }
}

impl Call {
    fn is_about(&self, flow: &Flow) -> bool {
        let is_named = |name: &str| {
            self.names.contains(name)
                // Long ids stand inside of others: a path, an alias.
                || (name.len() >= 6 && self.names.iter().any(|text| text.contains(name)))
        };
        flow.names().any(|name| !name.is_empty() && is_named(name))
    }
}

#[derive(Default)]
struct Kept {
    flows: VecDeque<Arc<Flow>>,
    /// The flow of each outbox item.
    items: HashMap<(String, String), u64>,
    total: u64,
}

/// The newest requests.
pub(crate) struct Flows {
    kept: Mutex<Kept>,
    changed: watch::Sender<u64>,
}

impl Flows {
    pub(crate) fn new() -> Self {
        Self {
            kept: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that something is new, here or in a table.
    pub(crate) fn ring(&self) {
        self.changed.send_modify(|revision| *revision += 1);
    }

    /// Rings after every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How many there were since the start.
    pub(crate) fn total(&self) -> u64 {
        self.lock().total
    }

    /// All that are remembered, newest first.
    pub(crate) fn all(&self) -> Vec<Arc<Flow>> {
        self.lock().flows.iter().rev().cloned().collect()
    }

    /// The number of the one with this tag.
    pub(crate) fn tagged(&self, tag: &str) -> Option<u64> {
        let kept = self.lock();
        let found = kept
            .flows
            .iter()
            .rev()
            .find(|flow| flow.tag.as_deref() == Some(tag));
        found.map(|flow| flow.number)
    }

    /// Remembers a request; gives its number.
    pub(crate) fn begin(&self, mut flow: Flow) -> u64 {
        let mut kept = self.lock();
        kept.total += 1;
        flow.number = kept.total;
        if kept.flows.len() == KEPT {
            let oldest = kept.flows.pop_front().map(|flow| flow.number);
            kept.items.retain(|_, number| Some(*number) != oldest);
        }
        let number = flow.number;
        kept.flows.push_back(Arc::new(flow));
        drop(kept);
        self.ring();
        number
    }

    /// Changes one that is still remembered.
    pub(crate) fn change(&self, number: u64, change: impl FnOnce(&mut Flow)) {
        let mut kept = self.lock();
        if let Some(flow) = kept.find(number) {
            change(flow);
        }
        drop(kept);
        self.ring();
    }

    /// The outbox subjects to look at, at most `limit`, and since when.
    pub(crate) fn watched(&self, limit: usize) -> HashMap<String, Timestamp> {
        let mut watched = HashMap::new();
        for flow in &mut self.lock().flows {
            if !flow.wants_a_look() {
                continue;
            }
            if watched.len() >= limit {
                break;
            }
            for subject in &flow.subjects {
                let since = watched.entry(subject.outbox()).or_insert(flow.at);
                *since = flow.at.min(*since);
            }
            Arc::make_mut(flow).looked = Instant::now();
        }
        watched
    }

    /// Takes over how outbox items stand now.
    pub(crate) fn found(&self, entries: Vec<Entry>) {
        let mut kept = self.lock();
        let mut is_new = false;
        for entry in entries {
            is_new |= kept.found(entry);
        }
        drop(kept);
        if is_new {
            self.ring();
        }
    }

    /// Puts calls to the requests that they follow from. Gives back those that follow from none.
    pub(crate) fn called(&self, calls: Vec<Call>) -> Vec<Call> {
        if calls.is_empty() {
            return calls;
        }
        let mut kept = self.lock();
        let left = calls.into_iter().filter_map(|call| kept.called(call)).collect();
        drop(kept);
        self.ring();
        left
    }

    /// Forgets which items were open before the last look.
    pub(crate) fn settled(&self) {
        for flow in &mut self.lock().flows {
            let is_stale = |item: &Item| item.was_open != (item.entry.status == Status::Pending);
            if flow.items.iter().any(is_stale) {
                for item in &mut Arc::make_mut(flow).items {
                    item.was_open = item.entry.status == Status::Pending;
                }
            }
        }
    }
}

impl Kept {
    fn find(&mut self, number: u64) -> Option<&mut Flow> {
        let flow = self.flows.iter_mut().rev().find(|flow| flow.number == number);
        flow.map(Arc::make_mut)
    }

    /// Whether that is news.
    fn found(&mut self, entry: Entry) -> bool {
        if let Some(number) = self.items.get(&entry.key()).copied() {
            let known = self.flows.iter_mut().rev().find(|flow| flow.number == number);
            let Some(flow) = known else { return false };
            let same = |item: &Item| item.entry.key() == entry.key();
            let Some(index) = flow.items.iter().position(same) else {
                return false;
            };
            if flow.items.get(index).is_some_and(|item| item.entry == entry) {
                return false;
            }
            if let Some(item) = Arc::make_mut(flow).items.get_mut(index) {
                item.entry = entry;
            }
            return true;
        }
        let follows = |flow: &&mut Arc<Flow>| {
            flow.at <= entry.created_at
                && flow
                    .subjects
                    .iter()
                    .any(|subject| subject.outbox() == entry.subject)
        };
        let flow = self.flows.iter_mut().rev().find(follows);
        let Some(flow) = flow.filter(|flow| flow.items.len() < FOLLOWING) else {
            return false;
        };
        let number = flow.number;
        let item = Item {
            entry: entry.clone(),
            was_open: true,
        };
        Arc::make_mut(flow).items.push(item);
        self.items.insert(entry.key(), number);
        true
    }

    /// The call back, if it follows from nothing that is remembered.
    fn called(&mut self, call: Call) -> Option<Call> {
        let about: Vec<usize> = (0..self.flows.len())
            .rev()
            .filter(|index| self.flows.get(*index).is_some_and(|flow| call.is_about(flow)))
            .collect();
        let sends = |index: &usize| {
            self.flows.get(*index).is_some_and(|flow| {
                flow.items
                    .iter()
                    .any(|item| item.was_open && call.to.takes(item.entry.kind))
            })
        };
        let mut senders: Vec<usize> = about.iter().copied().filter(sends).collect();
        if senders.is_empty() {
            senders.extend(about.first());
        }
        for index in &senders {
            if let Some(flow) = self.flows.get_mut(*index)
                && flow.calls.len() < FOLLOWING
            {
                Arc::make_mut(flow).calls.push(call.clone());
            }
        }
        senders.is_empty().then_some(call)
    }
}
