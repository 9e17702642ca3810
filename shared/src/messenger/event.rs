//! What can happen in a conversation, in the words of the domain, and what each kind means for a contact.

use jiff::Timestamp;

use super::key::{Channel, ContactKey, UserRefKey};
use crate::digest::Digest;
use crate::personal::Personal;

/// The longest dedup key that is kept as it reads; longer ones are hashed. `DynamoDB` takes sort keys of 1,024
/// bytes, and an outbox key puts a prefix and a suffix around it.
const LONGEST_KEY: usize = 400;

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Person {
    /// Somebody whose PSID or IGSID is known.
    Scoped(Personal<String>),
    /// Somebody who is known by a plugin's `user_ref` only.
    UserRef(Personal<String>),
    /// Nobody: the event is about the page or the account.
    None,
}

/// One item of a webhook.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Messenger or Instagram.
    pub channel: Channel,
    /// Page id or Instagram professional account id.
    pub account_id: String,
    /// Who did it.
    pub person: Person,
    /// When, to the millisecond: the item's own time, else its entry's, else the time of receipt.
    pub at: Timestamp,
    /// Our app is not the owner of the thread; it only looks on.
    pub standby: bool,
    /// What happened.
    pub kind: EventKind,
    /// Names the event among those of its person, the same in every delivery. At most 1,000 bytes.
    pub key: Personal<String>,
}

impl Event {
    /// The key of the contact that the event belongs to, if the person's scoped id is known.
    #[must_use]
    pub fn contact_key(&self) -> Option<ContactKey> {
        match &self.person {
            Person::Scoped(scoped_id) => Some(ContactKey {
                channel: self.channel,
                account_id: self.account_id.clone(),
                scoped_id: scoped_id.clone(),
            }),
            Person::UserRef(_) | Person::None => None,
        }
    }

    /// The key of the `user_ref` record that the event says something about, if any: a plugin's optin,
    /// postback or referral, or the first message of somebody who ticked a checkbox plugin.
    #[must_use]
    pub fn user_ref_key(&self) -> Option<UserRefKey> {
        self.user_ref()
            .map(|user_ref| UserRefKey::new(self.channel, &self.account_id, user_ref))
    }

    /// The `user_ref` that the event says something about.
    #[must_use]
    pub fn user_ref(&self) -> Option<&str> {
        match (&self.person, &self.kind) {
            (Person::UserRef(user_ref), _) => Some(user_ref),
            (_, EventKind::Optin(optin)) => optin.user_ref.as_ref().map(|text| text.as_str()),
            (Person::Scoped(_), EventKind::Message(message)) => {
                message.prior_user_ref.as_ref().map(|text| text.as_str())
            }
            _ => None,
        }
    }

    /// What the event means for its person's contact.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match self.kind.effect() {
            // Somebody wrote, but the app that owns the thread is the one that may answer.
            Effect::Window if self.standby => Effect::Interaction,
            effect => effect,
        }
    }
}

/// What a kind of event means for a contact. Each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The page's doing, or a receipt: no contact comes from it.
    Nothing,
    /// There is such a person, though it was not their doing.
    Contact,
    /// The person did something.
    Interaction,
    /// The person did something that opens the 24-hour window.
    Window,
}

/// Where a conversation came from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReferralSource {
    /// The `ref` of the link, ad or plugin; may be a link token.
    pub reference: Option<Personal<String>>,
    /// `SHORTLINK`, `ADS`, … as Meta spells it.
    pub source: Option<String>,
    /// The ad, if it was one.
    pub ad_id: Option<String>,
}

/// A person's message.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message {
    /// Message id; old and odd payloads have none.
    pub mid: Option<Personal<String>>,
    /// The text, if it has one.
    pub text: Option<Personal<String>>,
    /// The payload of the quick reply that was tapped.
    pub quick_reply: Option<Personal<String>>,
    /// The types of its attachments, as Meta spells them.
    pub attachments: Vec<String>,
    /// The ad or product it answers.
    pub referral: Option<ReferralSource>,
    /// The `user_ref` under which this person ticked a checkbox plugin before.
    pub prior_user_ref: Option<Personal<String>>,
}

/// A tapped button.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Postback {
    /// Message id, absent in old payloads.
    pub mid: Option<Personal<String>>,
    /// What the button carries; absent under standby.
    pub payload: Option<Personal<String>>,
    /// The link or ad that led to Get Started.
    pub referral: Option<ReferralSource>,
}

/// An opt-in, by a plugin or by a request in the conversation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Optin {
    /// `one_time_notif_req`, `notification_messages`; plugins have none.
    pub optin_type: Option<String>,
    /// The plugin's `ref`; may be a link token.
    pub reference: Option<Personal<String>>,
    /// Names the person of a checkbox plugin until the PSID is known.
    pub user_ref: Option<Personal<String>>,
    /// Whether a token for later messages came with it. The token itself is not kept.
    pub has_token: bool,
    /// `STOP NOTIFICATIONS`, `RESUME NOTIFICATIONS`; for one topic, so not an opt-out of everything.
    pub notification_status: Option<String>,
}

/// A reaction to a message.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reaction {
    /// The message reacted to.
    pub mid: Option<Personal<String>>,
    /// `love`, `like`, …; absent when taken back.
    pub reaction: Option<String>,
    /// Whether the reaction was taken back.
    pub removed: bool,
}

/// The outcome of the account linking flow.
#[derive(Debug, Clone, PartialEq)]
pub enum AccountLinking {
    /// Linked; the code is what our redirect passed on, a link token.
    Linked {
        /// The pass-through `authorization_code`.
        authorization_code: Option<Personal<String>>,
    },
    /// Unlinked by the person.
    Unlinked,
    /// A status that is not known.
    Other(String),
}

/// Who gave the thread to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// `pass_thread_control`
    Pass,
    /// `take_thread_control`
    Take,
    /// `request_thread_control`
    Request,
}

/// Which of the retired payment events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payment {
    /// `payment`
    Payment,
    /// `checkout_update`
    CheckoutUpdate,
    /// `pre_checkout`
    PreCheckout,
}

/// What happened. Kinds carry only what a decision or a custom event needs.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// The person wrote.
    Message(Message),
    /// The page wrote, through us or another app or its inbox.
    Echo {
        /// Message id.
        mid: Option<Personal<String>>,
        /// The app that sent it.
        app_id: Option<String>,
    },
    /// The person took a message back.
    Unsend {
        /// Message id.
        mid: Option<Personal<String>>,
    },
    /// The person changed a message.
    Edit {
        /// Message id.
        mid: Option<Personal<String>>,
        /// How many times it has been changed.
        num_edit: Option<String>,
    },
    /// Messages reached the person's device.
    Delivery,
    /// The person saw messages.
    Read,
    /// The person tapped a button.
    Postback(Postback),
    /// The person opted in.
    Optin(Optin),
    /// The person came by a link or an ad into a thread that existed.
    Referral(ReferralSource),
    /// The person reacted to a message.
    Reaction(Reaction),
    /// The person linked or unlinked an account.
    AccountLinking(AccountLinking),
    /// The thread changed hands.
    Handover(Handover),
    /// The app's role on the page changed.
    AppRoles,
    /// Meta warned, blocked or unblocked the page.
    PolicyEnforcement {
        /// `warning`, `block`, `unblock`.
        action: Option<String>,
    },
    /// The person filled in a feedback form.
    Feedback,
    /// The person rated an answer.
    ResponseFeedback {
        /// `Good response`, `Bad response`.
        feedback: Option<String>,
    },
    /// The person filled in a form about themselves.
    CustomerInformation,
    /// The person played an Instant Game.
    GamePlay,
    /// A payment event of old.
    Payment(Payment),
    /// The person opted out. Meta publishes no sample of it.
    Optout,
    /// None of the above; its raw item is quarantined.
    Unknown,
}

/// Every name that `MESSENGER_EVENTS` may list: the kinds that a person may stand behind.
pub const EVENT_NAMES: [&str; 18] = [
    "message",
    "echo",
    "unsend",
    "edit",
    "delivery",
    "read",
    "postback",
    "optin",
    "referral",
    "reaction",
    "account_linking",
    "handover",
    "feedback",
    "response_feedback",
    "customer_information",
    "game_play",
    "payment",
    "optout",
];

impl EventKind {
    /// The kind's name: in `MESSENGER_EVENTS`, in custom events (`messenger_<name>`) and in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Message(_) => "message",
            Self::Echo { .. } => "echo",
            Self::Unsend { .. } => "unsend",
            Self::Edit { .. } => "edit",
            Self::Delivery => "delivery",
            Self::Read => "read",
            Self::Postback(_) => "postback",
            Self::Optin(_) => "optin",
            Self::Referral(_) => "referral",
            Self::Reaction(_) => "reaction",
            Self::AccountLinking(_) => "account_linking",
            Self::Handover(_) => "handover",
            Self::AppRoles => "app_roles",
            Self::PolicyEnforcement { .. } => "policy_enforcement",
            Self::Feedback => "feedback",
            Self::ResponseFeedback { .. } => "response_feedback",
            Self::CustomerInformation => "customer_information",
            Self::GamePlay => "game_play",
            Self::Payment(_) => "payment",
            Self::Optout => "optout",
            Self::Unknown => "unknown",
        }
    }

    /// What the kind means for a contact.
    ///
    /// The window is opened by what Meta lists as opening it: writing, tapping a button (postback, optin,
    /// the buttons of account linking), coming by an m.me link, an ad or a plugin, and reacting. Taking
    /// something back, changing it, or filling in a form is an act of the person too, but is not on that list;
    /// to promise an open window that is closed makes a campaign fail (code 10, subcode 2018278).
    ///
    /// | kind | contact | interaction | window |
    /// |---|---|---|---|
    /// | message, postback, optin, referral, reaction, `account_linking` | yes | yes | yes |
    /// | unsend, edit, reaction taken back, forms, game, payment, optout | yes | yes | no |
    /// | handover | yes | no | no |
    /// | echo, delivery, read, `app_roles`, policy, unknown | no | no | no |
    ///
    /// Under standby nothing opens a window: see [`Event::effect`].
    #[must_use]
    pub fn effect(&self) -> Effect {
        match self {
            Self::Reaction(reaction) if reaction.removed => Effect::Interaction,
            Self::Message(_)
            | Self::Postback(_)
            | Self::Optin(_)
            | Self::Referral(_)
            | Self::Reaction(_)
            | Self::AccountLinking(_) => Effect::Window,
            Self::Unsend { .. }
            | Self::Edit { .. }
            | Self::Feedback
            | Self::ResponseFeedback { .. }
            | Self::CustomerInformation
            | Self::GamePlay
            | Self::Payment(_)
            | Self::Optout => Effect::Interaction,
            Self::Handover(_) => Effect::Contact,
            Self::Echo { .. }
            | Self::Delivery
            | Self::Read
            | Self::AppRoles
            | Self::PolicyEnforcement { .. }
            | Self::Unknown => Effect::Nothing,
        }
    }

    /// Where the conversation came from, if the event says so.
    #[must_use]
    pub fn referral(&self) -> Option<&ReferralSource> {
        match self {
            Self::Message(message) => message.referral.as_ref(),
            Self::Postback(postback) => postback.referral.as_ref(),
            Self::Referral(referral) => Some(referral),
            _ => None,
        }
    }
}

/// A dedup key: the kind's name and its parts, or the hash of them where they are long or odd.
pub(super) fn event_key(kind: &str, parts: &[&str]) -> String {
    let readable = parts.join(":");
    let plain = readable.bytes().all(|byte| byte.is_ascii_graphic());
    if plain && readable.len() <= LONGEST_KEY {
        format!("{kind}:{readable}")
    } else {
        format!("{kind}:sha256-{}", Digest::of_parts(parts))
    }
}
