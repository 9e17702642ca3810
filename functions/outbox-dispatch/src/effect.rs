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

enum Effect {
    Messenger(MessengerEffect),
    Send(Box<Message>),
    Fbe(FbeEffect),
    Partner(Box<PartnerNotice>),
    Health,
    Erase(Box<Order>),
    WhatsApp,
}

impl Effect {
    /// The one place where the payload of an item that was read is found unreadable.
    fn read(entry: &Entry) -> Result<Self, UnreadablePayload> {
        Ok(match entry.kind {
            Kind::ContactSync => Self::Messenger(MessengerEffect::Sync),
            Kind::ContactEvent => Self::Messenger(MessengerEffect::Event(entry.payload()?)),
            Kind::MessengerSend => Self::Send(entry.payload()?),
            Kind::FbeExchangeToken => Self::Fbe(FbeEffect::ExchangeToken(entry.payload()?)),
            Kind::FbeReconcile => Self::Fbe(FbeEffect::Reconcile),
            Kind::FbeReconcileManager => Self::Fbe(FbeEffect::ReconcileManager),
            Kind::FbePartnerNotify => Self::Partner(entry.payload()?),
            Kind::FbeNotify => Self::Fbe(FbeEffect::Notify(entry.payload()?)),
            Kind::FbeCatalogPush => Self::Fbe(FbeEffect::PushCatalog(entry.payload()?)),
            Kind::HealthCheck => Self::Health,
            Kind::Erase => Self::Erase(entry.payload()?),
            Kind::RelayMessage | Kind::RelayReply => Self::WhatsApp,
        })
    }
}

impl Work {
    /// Adds an item to its worker's tasks.
    pub(crate) fn add(&mut self, entry: Entry) {
        match Effect::read(&entry) {
            Ok(Effect::Messenger(effect)) => self.messenger.push(Task { entry, effect }),
            Ok(Effect::Send(effect)) => self.sends.push(Task {
                entry,
                effect: *effect,
            }),
            Ok(Effect::Fbe(effect)) => self.fbe.push(Task { entry, effect }),
            Ok(Effect::Partner(effect)) => self.partner.push(Task {
                entry,
                effect: *effect,
            }),
            Ok(Effect::Health) => self.health.push(Task { entry, effect: () }),
            Ok(Effect::Erase(effect)) => self.erase.push(Task {
                entry,
                effect: *effect,
            }),
            Ok(Effect::WhatsApp) => self.whatsapp.push(Task { entry, effect: () }),
            Err(error) => self.unreadable.push((entry, error.into())),
        }
    }
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
