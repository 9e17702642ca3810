//! Where a conversation's messages go, and which campaign carries its replies.

use shared::whatsapp::conversation::{Conversation, Mode};
use shared::whatsapp::route::named;
use shared::whatsapp::settings::{ExternalSystemKind, RelaySettings, RouteSettings};

/// The external system that a conversation's messages go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExternalSystem<'a> {
    /// Where it is.
    pub url: &'a str,
    /// How it is spoken to.
    pub kind: ExternalSystemKind,
    /// The route whose credentials it takes, if the route has some.
    pub route: Option<&'a str>,
}

/// The external system of a conversation on `route`; `None` if the relay has none. A route that the settings
/// no longer know counts as none.
pub(super) fn external_system<'a>(
    route: Option<&str>,
    settings: &'a RelaySettings,
) -> Option<ExternalSystem<'a>> {
    let route = named(route, &settings.rules.routes);
    let own = route.and_then(|route| route.external_system_url.as_deref());
    Some(ExternalSystem {
        url: own.or(settings.external_system_url.as_deref())?,
        kind: route
            .and_then(|route| route.kind)
            .unwrap_or(settings.external_system_kind),
        route: route.map(|route| route.name.as_str()),
    })
}

/// Whether the external system is to be asked. A chatbot without a server of its own stays silent while a
/// human has the conversation; a webhook is told the mode and decides for itself.
pub(super) fn is_asked(conversation: &Conversation, system: ExternalSystem<'_>) -> bool {
    conversation.mode == Mode::Bot || system.kind == ExternalSystemKind::Webhook
}

/// The campaign that carries a reply inside the window. `campaign` is what the answer named: a route, else a
/// campaign id as Braze knows it.
pub(super) fn reply_campaign<'a>(
    campaign: Option<&'a str>,
    route: Option<&str>,
    settings: &'a RelaySettings,
) -> Option<&'a str> {
    let of = |route: &'a RouteSettings| {
        route
            .reply_campaign_id
            .as_deref()
            .or(settings.reply_campaign_id.as_deref())
    };
    let routes = &settings.rules.routes;
    match (campaign, named(campaign, routes)) {
        (_, Some(route)) => of(route),
        (Some(id), None) => Some(id),
        (None, None) => named(route, routes).map_or(settings.reply_campaign_id.as_deref(), of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::tests::{conversation, relay_settings};

    const ROUTES: &str = r#"[
        {"name":"order","keywords":["ORDER"],"reply_campaign_id":"c-order"},
        {"name":"help","external_system_url":"https://help","kind":"openai"}]"#;

    #[test]
    fn a_route_overrides_only_what_it_names() {
        let settings = relay_settings(&[("RELAY_ROUTES", ROUTES)]);
        let system = |route| external_system(route, &settings).unwrap();
        let of_settings = ExternalSystem {
            url: "https://ai.example",
            kind: ExternalSystemKind::Webhook,
            route: None,
        };
        assert_eq!(system(None), of_settings);
        assert_eq!(system(Some("gone")), of_settings);
        assert_eq!(
            (system(Some("order")).url, system(Some("order")).route),
            (of_settings.url, Some("order"))
        );
        assert_eq!(
            (system(Some("help")).url, system(Some("help")).kind),
            ("https://help", ExternalSystemKind::Openai)
        );
    }

    #[test]
    fn campaigns_come_from_the_answer_then_the_route_then_the_settings() {
        let settings = relay_settings(&[("RELAY_ROUTES", ROUTES)]);
        let reply = |campaign, route| reply_campaign(campaign, route, &settings);
        assert_eq!(reply(None, None), Some("c"));
        assert_eq!(reply(None, Some("order")), Some("c-order"));
        assert_eq!(reply(Some("order"), Some("help")), Some("c-order"));
        assert_eq!(reply(Some("help"), Some("order")), Some("c"));
        assert_eq!(reply(Some("9f-step-2"), Some("order")), Some("9f-step-2"));
    }

    #[test]
    fn a_chatbot_is_silent_while_a_human_answers() {
        let mut conversation = conversation();
        let system = |kind| ExternalSystem {
            url: "https://ai",
            kind,
            route: None,
        };
        assert!(is_asked(&conversation, system(ExternalSystemKind::Openai)));
        conversation.set_mode(Mode::Human, conversation.last_activity_at);
        assert!(!is_asked(&conversation, system(ExternalSystemKind::Openai)));
        assert!(is_asked(&conversation, system(ExternalSystemKind::Webhook)));
    }
}
