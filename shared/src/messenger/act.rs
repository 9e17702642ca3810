//! What each kind of event, down to its sub-type, means for a contact: one table, a row with its source for each.
//!
//! Only what Meta lists opens the 24 hours. What is an act of the person and not on that list does not: to promise a
//! window that is closed makes a campaign fail (code 10, subcode 2018278).

use super::event::{AccountLinking, Event, EventKind, ReferralSource};

/// What happened, as far as the window and the contact are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(strum::EnumIter))]
pub enum Act {
    /// A person's message, of whatever content.
    Message,
    /// The page wrote.
    Echo,
    /// The person took a message back.
    Unsend,
    /// The person changed a message.
    Edit,
    /// Messages reached the person's device.
    Delivery,
    /// The person saw messages.
    Read,
    /// Get Started, a button, the menu, an ice breaker.
    Postback,
    /// An optin without a type: the Send to Messenger or the checkbox plugin.
    PluginOptin,
    /// An optin of type `notification_messages`, a stop and a resumption included.
    MarketingOptin,
    /// An optin of type `one_time_notif_req`.
    OneTimeOptin,
    /// An optin of a type that is not known.
    OtherOptin,
    /// By an m.me or ig.me link into a thread that existed.
    LinkReferral,
    /// By a click on an ad.
    AdReferral,
    /// By the chat plugin, which Meta has retired.
    PluginReferral,
    /// By some other way, or without saying which.
    OtherReferral,
    /// A reaction to a message.
    Reaction,
    /// A reaction taken back.
    ReactionRemoved,
    /// An account was linked.
    AccountLinked,
    /// An account was unlinked, or something else happened to the link.
    AccountUnlinked,
    /// The thread changed hands.
    Handover,
    /// The app's role on the page changed.
    AppRoles,
    /// Meta warned, blocked or unblocked the page.
    PolicyEnforcement,
    /// A feedback form was filled in.
    Feedback,
    /// An answer was rated.
    ResponseFeedback,
    /// A form about the person was filled in.
    CustomerInformation,
    /// An Instant Game was played.
    GamePlay,
    /// One of the retired payment events.
    Payment,
    /// The person opted out.
    Optout,
    /// A marketing message was sent, delivered, read, clicked or not delivered.
    MarketingMessage,
    /// A message template changed its status.
    TemplateStatus,
    /// A kind that is not known.
    Unknown,
}

impl Event {
    /// What the event means for its person's contact.
    #[must_use]
    pub fn effect(&self) -> Effect {
        let mut effect = Act::of(&self.kind).row().0;
        // It stands beside whatever the person did. An echo is the page's doing.
        if let Some(referral) = &self.referral
            && !matches!(self.kind, EventKind::Echo { .. })
        {
            effect = effect.max(Act::of_referral(referral).row().0);
        }
        match effect {
            // The person wrote, but the app that owns the thread is the one that may answer.
            Effect::Window if self.standby => Effect::Interaction,
            effect => effect,
        }
    }
}

/// What an act means for a contact. Each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// An act of the page, or a receipt: it makes no contact.
    Nothing,
    /// There is such a person, though it was not their doing.
    Contact,
    /// The person did something.
    Interaction,
    /// The person did something that opens the 24-hour window.
    Window,
}

/// The pages of <https://developers.facebook.com/docs/messenger-platform> that the table rests on.
const SEND: &str = "send-messages: the actions that open the standard messaging window";
const NOT_LISTED: &str = "send-messages: not among the actions that open the window";
const NO_ACT: &str = "reference/webhook-events: a receipt or the page's own doing";
const MARKETING: &str = "marketing-messages: consent to a topic, apart from the window";
const ONE_TIME: &str = "send-messages/one-time-notification: one token for one message";
const ADS: &str = "send-messages: a click on an ad opens it only with the message that follows";

impl Act {
    /// What kind of act an event is.
    #[must_use]
    pub fn of(kind: &EventKind) -> Self {
        match kind {
            EventKind::Message(_) => Self::Message,
            EventKind::Echo { .. } => Self::Echo,
            EventKind::Unsend { .. } => Self::Unsend,
            EventKind::Edit { .. } => Self::Edit,
            EventKind::Delivery => Self::Delivery,
            EventKind::Read => Self::Read,
            EventKind::Postback(_) => Self::Postback,
            EventKind::Optin(optin) if optin.is_about_marketing() => Self::MarketingOptin,
            EventKind::Optin(optin) => match optin.optin_type.as_deref() {
                Some(name) if name.eq_ignore_ascii_case("one_time_notif_req") => Self::OneTimeOptin,
                Some(_) => Self::OtherOptin,
                None if optin.has_one_time_token => Self::OneTimeOptin,
                None if optin.is_message_request => Self::OtherOptin,
                None => Self::PluginOptin,
            },
            EventKind::Referral(referral) => Self::of_referral(referral),
            EventKind::Reaction(reaction) if reaction.removed => Self::ReactionRemoved,
            EventKind::Reaction(_) => Self::Reaction,
            EventKind::AccountLinking(AccountLinking::Linked { .. }) => Self::AccountLinked,
            EventKind::AccountLinking(AccountLinking::Unlinked | AccountLinking::Other(_)) => {
                Self::AccountUnlinked
            }
            EventKind::Handover(_) => Self::Handover,
            EventKind::AppRoles => Self::AppRoles,
            EventKind::PolicyEnforcement { .. } => Self::PolicyEnforcement,
            EventKind::Feedback => Self::Feedback,
            EventKind::ResponseFeedback { .. } => Self::ResponseFeedback,
            EventKind::CustomerInformation => Self::CustomerInformation,
            EventKind::GamePlay => Self::GamePlay,
            EventKind::Payment(_) => Self::Payment,
            EventKind::Optout(_) => Self::Optout,
            EventKind::MarketingMessageEchoes
            | EventKind::MarketingMessageDeliveries
            | EventKind::MarketingMessageReads
            | EventKind::MarketingMessageClicks
            | EventKind::MarketingMessageDeliveryFailed => Self::MarketingMessage,
            EventKind::MessageTemplateStatusUpdate => Self::TemplateStatus,
            EventKind::Unknown => Self::Unknown,
        }
    }

    fn of_referral(referral: &ReferralSource) -> Self {
        let source = referral.source.as_deref();
        source.map_or(Self::OtherReferral, by_source)
    }

    /// The table: what the act means, and which of Meta's pages says so.
    #[expect(clippy::match_same_arms, reason = "it is a table: a row an act")]
    #[must_use]
    pub const fn row(self) -> (Effect, &'static str) {
        match self {
            Self::Message => (Effect::Window, SEND),
            Self::Postback => (Effect::Window, SEND),
            Self::PluginOptin => (Effect::Window, SEND),
            Self::LinkReferral => (Effect::Window, SEND),
            Self::Reaction => (Effect::Window, SEND),
            Self::AdReferral => (Effect::Interaction, ADS),
            Self::PluginReferral => (Effect::Interaction, NOT_LISTED),
            Self::OtherReferral => (Effect::Interaction, NOT_LISTED),
            Self::MarketingOptin => (Effect::Interaction, MARKETING),
            Self::OneTimeOptin => (Effect::Interaction, ONE_TIME),
            Self::OtherOptin => (Effect::Interaction, NOT_LISTED),
            Self::ReactionRemoved => (Effect::Interaction, NOT_LISTED),
            Self::AccountLinked => (Effect::Interaction, NOT_LISTED),
            Self::AccountUnlinked => (Effect::Interaction, NOT_LISTED),
            Self::Unsend => (Effect::Interaction, NOT_LISTED),
            Self::Edit => (Effect::Interaction, NOT_LISTED),
            Self::Feedback => (Effect::Interaction, NOT_LISTED),
            Self::ResponseFeedback => (Effect::Interaction, NOT_LISTED),
            Self::CustomerInformation => (Effect::Interaction, NOT_LISTED),
            Self::GamePlay => (Effect::Interaction, NOT_LISTED),
            Self::Payment => (Effect::Interaction, NOT_LISTED),
            Self::Optout => (Effect::Interaction, NOT_LISTED),
            Self::Handover => (Effect::Contact, NO_ACT),
            Self::Echo => (Effect::Nothing, NO_ACT),
            Self::Delivery => (Effect::Nothing, NO_ACT),
            Self::Read => (Effect::Nothing, NO_ACT),
            Self::AppRoles => (Effect::Nothing, NO_ACT),
            Self::PolicyEnforcement => (Effect::Nothing, NO_ACT),
            Self::MarketingMessage => (Effect::Nothing, MARKETING),
            Self::TemplateStatus => (Effect::Nothing, NO_ACT),
            Self::Unknown => (Effect::Nothing, NO_ACT),
        }
    }
}

/// `SHORTLINK` is also spelled `SHORT-URL`, and `IGME-source-link` for ig.me.
fn by_source(source: &str) -> Act {
    let mut source = source.to_ascii_uppercase();
    source.retain(|character| character.is_ascii_alphanumeric());
    match source.as_str() {
        "SHORTLINK" | "SHORTURL" => Act::LinkReferral,
        igme if igme.starts_with("IGME") => Act::LinkReferral,
        "ADS" => Act::AdReferral,
        "CUSTOMERCHATPLUGIN" => Act::PluginReferral,
        _ => Act::OtherReferral,
    }
}
