//! What an item is about to do, typed by its kind.

use shared::erase::Order;
use shared::fbe::plan::PartnerNotice;
use shared::messenger::send::Message;
use shared::outbox::{Entry, Kind, Reason, UnreadablePayload};

use crate::fbe::effect::FbeEffect;
use crate::messenger::MessengerEffect;
use crate::settle::Outcome;

/// An item, and what it is about to do.
pub(crate) struct Task<Effect> {
    pub(crate) entry: Entry,
    pub(crate) effect: Effect,
}

/// The tasks of one subject, in the order of their event keys.
pub(crate) struct Group<Effect> {
    pub(crate) subject: String,
    pub(crate) tasks: Vec<Task<Effect>>,
}

/// What the workers are given.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) messenger: Vec<Task<MessengerEffect>>,
    /// Messages to people.
    pub(crate) sends: Vec<Task<Message>>,
    pub(crate) fbe: Vec<Task<FbeEffect>>,
    /// Notices to the partner's platform.
    pub(crate) partner: Vec<Task<PartnerNotice>>,
    /// A look at the app and its pages needs no particulars.
    pub(crate) health: Vec<Task<()>>,
    /// Erasures.
    pub(crate) erase: Vec<Task<Order>>,
    /// An item of a conversation only wakes: what is to be done stands in the conversation.
    pub(crate) whatsapp: Vec<Task<()>>,
    /// What became at once of items that no worker can be given.
    pub(crate) unreadable: Vec<(Entry, Outcome)>,
}

impl Work {
    /// Adds an item to its worker's tasks. The one place where the payload of an item that was read is found unreadable.
    pub(crate) fn add(&mut self, entry: Entry) {
        let unreadable = match entry.kind {
            Kind::ContactSync => push(&mut self.messenger, Ok(MessengerEffect::Sync), entry),
            Kind::ContactEvent => {
                let event = entry.payload().map(MessengerEffect::Event);
                push(&mut self.messenger, event, entry)
            }
            Kind::MessengerSend => push(&mut self.sends, entry.payload(), entry),
            Kind::FbeExchangeToken => {
                let token = entry.payload().map(FbeEffect::ExchangeToken);
                push(&mut self.fbe, token, entry)
            }
            Kind::FbeReconcile => push(&mut self.fbe, Ok(FbeEffect::Reconcile), entry),
            Kind::FbeReconcileManager => push(&mut self.fbe, Ok(FbeEffect::ReconcileManager), entry),
            Kind::FbePartnerNotify => push(&mut self.partner, entry.payload(), entry),
            Kind::FbeNotify => push(&mut self.fbe, entry.payload().map(FbeEffect::Notify), entry),
            Kind::FbeCatalogPush => push(&mut self.fbe, entry.payload().map(FbeEffect::PushCatalog), entry),
            Kind::HealthCheck => push(&mut self.health, Ok(()), entry),
            Kind::Erase => push(&mut self.erase, entry.payload(), entry),
            Kind::RelayMessage | Kind::RelayReply => push(&mut self.whatsapp, Ok(()), entry),
        };
        self.unreadable.extend(unreadable);
    }
}

/// Adds a task, or gives back the item whose payload is unreadable.
fn push<Effect>(
    tasks: &mut Vec<Task<Effect>>,
    effect: Result<Effect, UnreadablePayload>,
    entry: Entry,
) -> Option<(Entry, Outcome)> {
    match effect {
        Ok(effect) => tasks.push(Task { entry, effect }),
        Err(error) => return Some((entry, error.into())),
    }
    None
}

impl<Effect> Group<Effect> {
    /// Groups tasks by subject.
    pub(crate) fn all_of(mut tasks: Vec<Task<Effect>>) -> Vec<Self> {
        fn key<Effect>(task: &Task<Effect>) -> (&str, &str) {
            (&task.entry.subject, &task.entry.event_key)
        }
        tasks.sort_by(|a, b| key(a).cmp(&key(b)));
        let mut groups: Vec<Self> = Vec::new();
        for task in tasks {
            match groups.last_mut() {
                Some(group) if group.subject == task.entry.subject => group.tasks.push(task),
                _ => groups.push(Self {
                    subject: task.entry.subject.clone(),
                    tasks: vec![task],
                }),
            }
        }
        groups
    }

    /// Leaves the first `most` tasks, and gives the others as a group of their own.
    pub(crate) fn split_off(&mut self, most: usize) -> Option<Self> {
        (self.tasks.len() > most).then(|| Self {
            subject: self.subject.clone(),
            tasks: self.tasks.split_off(most),
        })
    }

    /// The same outcome for every task.
    pub(crate) fn outcome(self, outcome: &Outcome) -> Vec<(Entry, Outcome)> {
        let tasks = self.tasks.into_iter();
        tasks.map(|task| (task.entry, outcome.clone())).collect()
    }
}

impl From<UnreadablePayload> for Outcome {
    fn from(_: UnreadablePayload) -> Self {
        Self::dead(Reason::PayloadUnreadable)
    }
}
