//! Routes: which messages go to which external system, and are answered through which campaign.

use regex::Regex;
use serde_json::{Map, Value};

use crate::whatsapp::settings::{KeywordMatch, RouteSettings, Rules};

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

impl Rules {
    /// The template campaign for a reply that names `campaign` (a route or a campaign, if anything) in a
    /// conversation on `route`.
    #[must_use]
    pub fn template_campaign<'a>(
        &'a self,
        campaign: Option<&'a str>,
        route: Option<&str>,
    ) -> Option<&'a str> {
        let route = named(campaign, &self.routes).or_else(|| named(route, &self.routes));
        let own = route.and_then(|route| route.template_campaign_id.as_deref());
        own.or(self.template_campaign_id.as_deref())
    }

    /// The campaign that an answer names itself, by its id or by a route with a campaign of its own: the brand knows
    /// what is in it, so it is sent whatever the window. A route with a template campaign of its own has one for
    /// each side of the window.
    #[must_use]
    pub fn own_campaign<'a>(&'a self, campaign: Option<&'a str>) -> Option<&'a str> {
        match named(campaign, &self.routes) {
            Some(route) if route.template_campaign_id.is_none() => route.reply_campaign_id.as_deref(),
            Some(_) => None,
            None => campaign,
        }
    }

    /// Whether the settings call this campaign a template campaign.
    #[must_use]
    pub fn is_template(&self, campaign: &str) -> bool {
        let routes = self.routes.iter().map(|route| &route.template_campaign_id);
        let mut templates = routes.chain([&self.template_campaign_id]).flatten();
        templates.any(|id| id == campaign)
    }

    /// What the conversation's route writes to the Braze profile.
    #[must_use]
    pub fn attributes(&self, route: Option<&str>) -> Option<&Map<String, Value>> {
        named(route, &self.routes).map(|route| &route.attributes)
    }
}

/// The route with this name.
#[must_use]
pub fn named<'a>(name: Option<&str>, routes: &'a [RouteSettings]) -> Option<&'a RouteSettings> {
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
        RouteTable::new(&relay_settings(&[("RELAY_ROUTES", ROUTES)]).rules.routes)
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
    fn what_is_named_is_sent_as_it_is_named() {
        let settings = relay_settings(&[("RELAY_ROUTES", ROUTES), ("TEMPLATE_CAMPAIGN_ID", "t")]);
        let rules = &settings.rules;
        assert_eq!(rules.own_campaign(Some("9f-step-2")), Some("9f-step-2"));
        assert_eq!(rules.own_campaign(Some("order")), Some("c-order"));
        // These name no campaign of their own, or one for each side of the window.
        for campaign in [None, Some("help"), Some("refund")] {
            assert_eq!(rules.own_campaign(campaign), None, "{campaign:?}");
        }
    }

    #[test]
    fn a_template_comes_from_the_answers_route_then_the_conversations_then_the_settings() {
        let settings = relay_settings(&[("RELAY_ROUTES", ROUTES), ("TEMPLATE_CAMPAIGN_ID", "t")]);
        let rules = &settings.rules;
        assert_eq!(rules.template_campaign(None, None), Some("t"));
        assert_eq!(rules.template_campaign(None, Some("refund")), Some("t-refund"));
        assert_eq!(rules.template_campaign(Some("refund"), None), Some("t-refund"));
        assert!(rules.is_template("t") && rules.is_template("t-refund") && !rules.is_template("c"));
    }
}
