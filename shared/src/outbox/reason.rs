//! Why an item is dead, waits or is tried again.

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
    /// The window is closed, and there is no template campaign.
    WindowClosed,
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
