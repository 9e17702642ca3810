//! Why an item is dead, waits or is tried again, and why a payload was not understood.

/// The codes of ours. What Braze, Graph or the external system answers has codes that begin with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumIter, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// A reply without text: Braze would drop it and say 201.
    Blank,
    /// The feed's connection was cut off.
    CatalogFeedCutOff,
    /// The Canvas that a reply goes by is paused or archived: Braze takes the request, and nothing comes of it.
    CanvasNotLive,
    /// An id does not fit into the feed's URL.
    CatalogFeedNoUrl,
    /// The feed gives nothing new within an invocation, twice in a row.
    CatalogFeedTooSlow,
    /// Not one item of the feed can be read.
    CatalogFeedUnreadable,
    /// The feed cannot be reached.
    CatalogFeedUnreachable,
    /// A push ran out of time and goes on.
    CatalogPushContinues,
    /// Meta is not done with the batches of a push.
    CatalogPushProcessing,
    /// Meta takes no item of a catalog.
    CatalogRefused,
    /// An event of a contact that is not stored yet.
    ContactMissing,
    /// The contact is no longer stored.
    ContactUnknown,
    /// The conversation cannot be read by this version.
    ConversationUnreadable,
    /// The messages waited for an external system that was down all the time.
    ExternalSystemDownForTooLong,
    /// Graph did not answer the look at the app and its pages.
    GraphUnavailable,
    /// An install was written by others again and again.
    InstallContended,
    /// The lease expired during the work, and another worker has claimed the subject.
    LeaseLost,
    /// No campaign is configured for the reply.
    NoCampaign,
    /// No external system is configured for the route.
    NoExternalSystem,
    /// Nothing identifies the person to Braze.
    NoRecipient,
    /// The page or Instagram account has no token in the meta secret.
    NoPageToken,
    /// The business has no token.
    NoToken,
    /// The subject names no business.
    NotABusiness,
    /// An older notice of the business has to leave first.
    OlderNotice,
    /// The partner secret cannot sign.
    PartnerSecretUnusable,
    /// The partner's platform does not answer.
    PartnerUnreachable,
    /// The person wants no messages.
    OptedOut,
    /// Another app has the thread.
    OtherAppHasThread,
    /// The page pauses: Meta has restricted it, or takes no more of its messages for now.
    PageRestricted,
    /// Graph refuses the page's token.
    PageTokenInvalid,
    /// The payload is not of its kind's shape.
    PayloadUnreadable,
    /// A profile has moved in part; the rest follows in a request of its own.
    ProfileMoves,
    /// Secrets Manager did not answer.
    SecretsUnavailable,
    /// DynamoDB did not answer.
    StoreUnavailable,
    /// Graph refuses the business's token.
    TokenInvalid,
    /// Another token has arrived during the work.
    TokenReplaced,
    /// The person has stopped the topic of the message.
    TopicStopped,
    /// The message was removed, a month after it came.
    TurnExpired,
    /// The message cannot be read by this version.
    TurnUnreadable,
    /// The conversation is not stored.
    UnknownConversation,
    /// Meta cannot reach the person until they act again.
    Unreachable,
    /// Another contact of the same user cannot be read by this version.
    UnreadableContact,
    /// The install, or the record of a Business Manager, cannot be read by this version.
    UnreadableInstall,
    /// The window is closed, and there is no template campaign.
    WindowClosed,

    // Of payloads that are kept in quarantine.
    /// A body that Liquid broke can be read in several ways.
    Ambiguous,
    /// An id of a person or account cannot be one.
    BadId,
    /// No secret can be named after the business id.
    BusinessIdTooLong,
    /// A key stands twice, with two values.
    DuplicateKey,
    /// A body without anything in it.
    EmptyBody,
    /// Who wrote stands behind what they wrote, and may have been typed into it.
    IdentityAfterMessage,
    /// A character of the identity was lost on the way.
    IdentityDamaged,
    /// The identity is a number that was rounded.
    IdentityRounded,
    /// JSON without a list of entries.
    MalformedBody,
    /// An entry is not an object with readable keys.
    MalformedEntry,
    /// An item or change is not an object with readable keys.
    MalformedItem,
    /// `messaging`, `standby` or `changes` is not a list.
    MalformedList,
    /// `message_b64` is not base64 of UTF-8.
    MessageB64,
    /// The page or account is not named.
    NoAccount,
    /// Nothing says which business it is about.
    NoBusinessId,
    /// An integration event without a Business Manager.
    NoBusinessManagerId,
    /// Nothing says who wrote.
    NoIdentity,
    /// An entry holds none of the lists that we know.
    NoItems,
    /// An item of a person does not say whose.
    NoPerson,
    /// A known field without an object as its value.
    NoValue,
    /// JSON, but not an object.
    NotAnObject,
    /// The body is not JSON; typographic quotes are a usual cause.
    NotJson,
    /// JSON of none of the known shapes.
    NotUnderstood,
    /// The app dashboard's sample of an install: expected, and no reason for an alarm.
    Sample,
    /// More than can be stored.
    TooLarge,
    /// An opt-out, of which Meta publishes no sample: read, and kept for comparison.
    UnconfirmedShape,
    /// A change is of a field that we do not know.
    UnknownField,
    /// An item has none of the keys that name a kind.
    UnknownKind,
    /// `object` is neither `page` nor `instagram`.
    UnknownObject,
    /// Neither JSON nor a form, nor what Liquid makes of either.
    Unreadable,
    /// The subscription sends the names of fields without their values.
    ValuesNotIncluded,
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.as_str().to_owned()
    }
}

impl Reason {
    /// As it is stored, logged and documented.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn the_documents_name_each_reason() {
        let documents = [
            include_str!("../../../docs/operations.md"),
            include_str!("../../../docs/fbe.md"),
            include_str!("../../../docs/messenger.md"),
            include_str!("../../../docs/whatsapp.md"),
        ];
        let is_named = |reason: &Reason| {
            let code = format!("`{}`", reason.as_str());
            documents.iter().any(|document| document.contains(&code))
        };
        let missing: Vec<Reason> = Reason::iter().filter(|reason| !is_named(reason)).collect();
        assert_eq!(missing, []);
    }
}
