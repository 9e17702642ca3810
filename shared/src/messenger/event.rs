//! What can happen in a conversation, in the words of the domain.

use jiff::Timestamp;
use strum::VariantNames;

use super::key::{Channel, ContactKey, UserRefKey};
use super::topic::Topic;
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
    /// Another app owns the thread; ours only observes.
    pub standby: bool,
    /// What happened.
    pub kind: EventKind,
    /// `prior_message`, beside any kind: the `user_ref` under which this person ticked a checkbox plugin before.
    pub prior_user_ref: Option<Personal<String>>,
    /// `referral`, beside another kind.
    pub referral: Option<ReferralSource>,
    /// Names the event among those of its person, the same in every delivery. At most 1,000 bytes.
    pub key: Personal<String>,
}

impl Event {
    /// The key of the contact that the event belongs to, if the person's scoped id is known.
    #[must_use]
    pub fn contact_key(&self) -> Option<ContactKey> {
        let Person::Scoped(scoped_id) = &self.person else {
            return None;
        };
        Some(ContactKey::new(self.channel, &self.account_id, scoped_id.clone()))
    }

    /// The message of ours whose echo it is: whom it reached, and its id.
    #[must_use]
    pub fn own_message(&self) -> Option<(ContactKey, &str)> {
        let EventKind::Echo { send_id, .. } = &self.kind else {
            return None;
        };
        self.contact_key().zip(send_id.as_deref())
    }

    /// The key of the `user_ref` record that the event says something about, if any: a plugin's optin,
    /// postback or referral, or the first act of a person who ticked a checkbox plugin.
    #[must_use]
    pub fn user_ref_key(&self) -> Option<UserRefKey> {
        self.user_ref()
            .map(|user_ref| UserRefKey::new(self.channel, &self.account_id, user_ref))
    }

    /// The `user_ref` that the event says something about.
    #[must_use]
    pub fn user_ref(&self) -> Option<&str> {
        match (&self.person, &self.kind) {
            (Person::UserRef(user_ref), _)
            | (
                _,
                EventKind::Optin(Optin {
                    user_ref: Some(user_ref),
                    ..
                }),
            ) => Some(user_ref),
            // An echo is the page's doing.
            (Person::Scoped(_), EventKind::Echo { .. }) | (Person::None, _) => None,
            (Person::Scoped(_), _) => self.prior_user_ref.as_ref().map(|text| text.as_str()),
        }
    }

    /// Where the conversation came from, if the event says so.
    #[must_use]
    pub fn referral(&self) -> Option<&ReferralSource> {
        self.referrals().next()
    }

    /// What the kind says of where the conversation came from, then what stands beside it.
    pub fn referrals(&self) -> impl Iterator<Item = &ReferralSource> {
        let of_kind = match &self.kind {
            EventKind::Message(message) => message.referral.as_ref(),
            EventKind::Postback(postback) => postback.referral.as_ref(),
            EventKind::Referral(referral) => Some(referral),
            _ => None,
        };
        of_kind.into_iter().chain(&self.referral)
    }
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
    /// Whether a token for one later message came with it. The token itself is not kept.
    pub has_one_time_token: bool,
    /// Whether the person lets a page write that has found them by customer matching.
    pub is_message_request: bool,
    /// The title of a topic of marketing messages.
    pub title: Option<String>,
    /// What was said of that topic.
    pub topic: Topic,
    /// `STOP NOTIFICATIONS`, `RESUME NOTIFICATIONS`; for one topic, so not an opt-out of everything.
    pub notification_status: Option<String>,
}

/// An opt-out. Meta publishes no sample of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Optout {
    /// `notification_messages`; none for everything, or for the topic that it names.
    pub optout_type: Option<String>,
    /// The title of the topic.
    pub title: Option<String>,
    /// What was said of that topic.
    pub topic: Topic,
}

impl Optin {
    /// Whether it is about marketing messages. Without a type, what it brings says what it is.
    #[must_use]
    pub fn is_about_marketing(&self) -> bool {
        let names_topic = self.notification_status.is_some() || self.topic.is_named(self.title.as_deref());
        is_about_marketing(self.optin_type.as_deref(), names_topic)
    }
}

impl Optout {
    /// Whether it is about marketing messages. Without a type, what it brings says what it is.
    #[must_use]
    pub fn is_about_marketing(&self) -> bool {
        let names_topic = self.topic.is_named(self.title.as_deref());
        is_about_marketing(self.optout_type.as_deref(), names_topic)
    }
}

fn is_about_marketing(name: Option<&str>, names_topic: bool) -> bool {
    name.map_or(names_topic, |name| {
        name.eq_ignore_ascii_case("notification_messages")
    })
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
#[derive(Debug, Clone, PartialEq, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum EventKind {
    /// The person wrote.
    Message(Message),
    /// The page wrote, through us or another app or its inbox.
    Echo {
        /// Message id.
        mid: Option<Personal<String>>,
        /// The app that sent it.
        app_id: Option<String>,
        /// Of a message that left through the bridge: its id.
        send_id: Option<String>,
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
    /// The person opted out.
    Optout(Optout),
    /// A marketing message was sent to the person.
    MarketingMessageEchoes,
    /// A marketing message reached the person's device.
    MarketingMessageDeliveries,
    /// The person saw a marketing message.
    MarketingMessageReads,
    /// The person tapped a marketing message.
    MarketingMessageClicks,
    /// A marketing message could not be delivered. Meta does not say to whom.
    MarketingMessageDeliveryFailed,
    /// A message template of the page changed its status.
    MessageTemplateStatusUpdate,
    /// None of the above; its raw item is quarantined.
    Unknown,
}

/// Every name that `MESSENGER_EVENTS` may list: the kinds that a person may stand behind, and what Meta's own fields are
/// called.
pub fn event_names() -> impl Iterator<Item = &'static str> {
    const WITHOUT_PERSON: [&str; 3] = ["app_roles", "policy_enforcement", "unknown"];
    EventKind::VARIANTS
        .iter()
        .copied()
        .filter(|name| !WITHOUT_PERSON.contains(name))
}

impl EventKind {
    /// The kind's name: in `MESSENGER_EVENTS`, in custom events (`messenger_<name>`) and in dedup keys.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.into()
    }

    /// The kind of a change of the Page field `field`, if its value is no item of a conversation.
    #[must_use]
    pub fn of_field(field: &str) -> Option<Self> {
        Some(match field {
            "marketing_message_echoes" => Self::MarketingMessageEchoes,
            "marketing_message_deliveries" => Self::MarketingMessageDeliveries,
            "marketing_message_reads" => Self::MarketingMessageReads,
            "marketing_message_clicks" => Self::MarketingMessageClicks,
            "marketing_message_delivery_failed" => Self::MarketingMessageDeliveryFailed,
            "message_template_status_update" => Self::MessageTemplateStatusUpdate,
            _ => return None,
        })
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
