//! Routes: which messages go to which external system, and are answered through which campaign.

use regex::Regex;
use serde_json::{Map, Value};

use crate::whatsapp::settings::{
    ExternalSystemKind, InboundSettings, KeywordMatch, RelaySettings, RouteSettings,
};

/// The routes' keywords, ready to be held against messages. Made once at start, since regular expressions
/// are slow to compile.
pub struct RouteTable(Vec<(String, Vec<Keyword>)>);

enum Keyword {
    Exact(String),
    Prefix(String),
    Contains(String),
    Regex(Regex),
}

impl RouteTable {
    /// Prepares `routes`. Blank keywords match nothing. Settings with a wrong expression do not get this far.
    #[must_use]
    pub fn new(routes: &[RouteSettings]) -> Self {
        let prepare = |kind: KeywordMatch, keyword: &String| {
            let plain = keyword.trim().to_lowercase();
            if plain.is_empty() {
                return None;
            }
            Some(match kind {
                KeywordMatch::Exact => Keyword::Exact(plain),
                KeywordMatch::Prefix => Keyword::Prefix(plain),
                KeywordMatch::Contains => Keyword::Contains(plain),
                KeywordMatch::Regex => Keyword::Regex(Regex::new(keyword).ok()?),
            })
        };
        let prepare_all = |route: &RouteSettings| {
            let keywords = route.keywords.iter();
            keywords
                .filter_map(|keyword| prepare(route.keyword_match, keyword))
                .collect()
        };
        Self(
            routes
                .iter()
                .map(|route| (route.name.clone(), prepare_all(route)))
                .collect(),
        )
    }

    /// The name of the first route that `text` matches. Blanks around the text and its case do not count,
    /// except for regular expressions, which see the text as it is.
    #[must_use]
    pub fn matching(&self, text: &str) -> Option<&str> {
        let plain = text.trim().to_lowercase();
        let matches = |keyword: &Keyword| match keyword {
            Keyword::Exact(keyword) => plain == *keyword,
            Keyword::Prefix(keyword) => plain.starts_with(keyword.as_str()),
            Keyword::Contains(keyword) => plain.contains(keyword.as_str()),
            Keyword::Regex(regex) => regex.is_match(text),
        };
        let route = self.0.iter().find(|(_, keywords)| keywords.iter().any(matches));
        route.map(|(name, _)| name.as_str())
    }
}

/// The external system that a conversation's messages go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExternalSystem<'a> {
    /// Where it is.
    pub url: &'a str,
    /// How it is spoken to.
    pub kind: ExternalSystemKind,
}

/// The external system of a conversation on `route`; `None` if the relay has none. A route that the settings
/// no longer know counts as none.
#[must_use]
pub fn external_system<'a>(route: Option<&str>, settings: &'a RelaySettings) -> Option<ExternalSystem<'a>> {
    let route = named(route, &settings.routes);
    let own = route.and_then(|route| route.external_system_url.as_deref());
    Some(ExternalSystem {
        url: own.or(settings.external_system_url.as_deref())?,
        kind: route
            .and_then(|route| route.kind)
            .unwrap_or(settings.external_system_kind),
    })
}

/// What planning and checking a reply needs of the settings.
#[derive(Debug, Clone, Copy)]
pub struct ReplyRules<'a> {
    /// `RELAY_ROUTES`
    pub routes: &'a [RouteSettings],
    /// `TEMPLATE_CAMPAIGN_ID`
    pub template_campaign_id: Option<&'a str>,
}

impl<'a> From<&'a InboundSettings> for ReplyRules<'a> {
    fn from(settings: &'a InboundSettings) -> Self {
        Self {
            routes: &settings.routes,
            template_campaign_id: settings.template_campaign_id.as_deref(),
        }
    }
}

impl<'a> From<&'a RelaySettings> for ReplyRules<'a> {
    fn from(settings: &'a RelaySettings) -> Self {
        Self {
            routes: &settings.routes,
            template_campaign_id: settings.template_campaign_id.as_deref(),
        }
    }
}

impl<'a> ReplyRules<'a> {
    /// The template campaign for a reply that names `campaign` (a route or a campaign, if anything) in a
    /// conversation on `route`.
    #[must_use]
    pub fn template_campaign(&self, campaign: Option<&'a str>, route: Option<&str>) -> Option<&'a str> {
        if let Some(named) = campaign.filter(|id| self.is_template(id)) {
            return Some(named);
        }
        let route = named(campaign, self.routes).or_else(|| named(route, self.routes));
        let own = route.and_then(|route| route.template_campaign_id.as_deref());
        own.or(self.template_campaign_id)
    }

    /// Whether the settings call this campaign a template campaign.
    #[must_use]
    pub fn is_template(&self, campaign: &str) -> bool {
        let routes = self
            .routes
            .iter()
            .filter_map(|route| route.template_campaign_id.as_deref());
        routes.chain(self.template_campaign_id).any(|id| id == campaign)
    }

    /// What the conversation's route writes to the Braze profile.
    #[must_use]
    pub fn attributes(&self, route: Option<&str>) -> Option<&'a Map<String, Value>> {
        named(route, self.routes).map(|route| &route.attributes)
    }
}

/// The campaign that carries a reply inside the window. `campaign` is what the answer named: a route, else a
/// campaign id as Braze knows it.
#[must_use]
pub fn reply_campaign<'a>(
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
    match (campaign, named(campaign, &settings.routes)) {
        (_, Some(route)) => of(route),
        (Some(id), None) => Some(id),
        (None, None) => named(route, &settings.routes).map_or(settings.reply_campaign_id.as_deref(), of),
    }
}

fn named<'a>(name: Option<&str>, routes: &'a [RouteSettings]) -> Option<&'a RouteSettings> {
    let name = name?;
    routes.iter().find(|route| route.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::tests::relay_settings;

    const ROUTES: &str = r#"[
        {"name":"order","keywords":["ORDER"," "],"match":"exact","reply_campaign_id":"c-order"},
        {"name":"help","keywords":["help"],"match":"prefix","external_system_url":"https://help","kind":"openai"},
        {"name":"refund","keywords":["REFUND","Ärger"],"match":"contains","template_campaign_id":"t-refund"},
        {"name":"number","keywords":["^\\d{5}$"],"match":"regex","attributes":{"asked":true}},
        {"name":"never"}]"#;

    fn table() -> RouteTable {
        RouteTable::new(&relay_settings(&[("RELAY_ROUTES", ROUTES)]).routes)
    }

    #[test]
    fn the_first_route_that_matches_is_taken() {
        let table = table();
        for (text, route) in [
            (" order ", Some("order")),
            ("my order", None),
            ("Help me with a refund", Some("help")),
            ("I want my ReFund!", Some("refund")),
            ("so ein ÄRGER", Some("refund")),
            ("12345", Some("number")),
            (" 12345", None),
            ("", None),
        ] {
            assert_eq!(table.matching(text), route, "{text}");
        }
    }

    #[test]
    fn a_route_overrides_only_what_it_names() {
        let settings = relay_settings(&[("RELAY_ROUTES", ROUTES)]);
        let system = |route| external_system(route, &settings).unwrap();
        assert_eq!(
            system(None),
            ExternalSystem {
                url: "https://ai.example",
                kind: ExternalSystemKind::Webhook
            }
        );
        assert_eq!(system(Some("order")), system(None));
        assert_eq!(system(Some("gone")), system(None));
        assert_eq!(
            system(Some("help")),
            ExternalSystem {
                url: "https://help",
                kind: ExternalSystemKind::Openai
            }
        );
    }

    #[test]
    fn campaigns_come_from_the_answer_then_the_route_then_the_settings() {
        let settings = relay_settings(&[("RELAY_ROUTES", ROUTES), ("TEMPLATE_CAMPAIGN_ID", "t")]);
        let reply = |campaign, route| reply_campaign(campaign, route, &settings);
        assert_eq!(reply(None, None), Some("c"));
        assert_eq!(reply(None, Some("order")), Some("c-order"));
        assert_eq!(reply(Some("order"), Some("help")), Some("c-order"));
        assert_eq!(reply(Some("help"), Some("order")), Some("c"));
        assert_eq!(reply(Some("9f-step-2"), Some("order")), Some("9f-step-2"));
        let rules = ReplyRules::from(&settings);
        assert_eq!(rules.template_campaign(None, None), Some("t"));
        assert_eq!(rules.template_campaign(None, Some("refund")), Some("t-refund"));
        assert_eq!(rules.template_campaign(Some("refund"), None), Some("t-refund"));
        assert_eq!(rules.template_campaign(Some("t-refund"), None), Some("t-refund"));
        assert_eq!(
            rules.template_campaign(Some("9f-step-2"), Some("refund")),
            Some("t-refund")
        );
        assert!(rules.is_template("t") && rules.is_template("t-refund") && !rules.is_template("c"));
    }
}
