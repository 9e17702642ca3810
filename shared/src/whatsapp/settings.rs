//! The settings of the WhatsApp relay.

use std::collections::BTreeSet;
use std::time::Duration;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::attributes::Reserved;
use crate::config::Env;

/// Which system answers WhatsApp messages, and how it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, strum::EnumString)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", ascii_case_insensitive)]
pub enum ExternalSystemKind {
    /// Our own JSON, signed by the Standard Webhooks headers.
    #[default]
    Webhook,
    /// Any OpenAI-compatible `/chat/completions`.
    Openai,
}

/// How a route's keywords are held against a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeywordMatch {
    /// The whole message, without regard to case and blanks around it.
    #[default]
    Exact,
    /// The message starts with a keyword, without regard to case.
    Prefix,
    /// The message contains a keyword, without regard to case.
    Contains,
    /// A keyword is a regular expression.
    Regex,
}

/// One entry of `RELAY_ROUTES`: the first whose keywords match takes the conversation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSettings {
    /// Name, unique; an answer may name it.
    pub name: String,
    /// What to look for in a message.
    #[serde(default)]
    pub keywords: Vec<String>,
    /// How to look for it.
    #[serde(default, rename = "match")]
    pub keyword_match: KeywordMatch,
    /// Instead of `EXTERNAL_SYSTEM_URL`.
    pub external_system_url: Option<String>,
    /// Instead of `EXTERNAL_SYSTEM_KIND`.
    pub kind: Option<ExternalSystemKind>,
    /// Instead of `REPLY_CAMPAIGN_ID`.
    pub reply_campaign_id: Option<String>,
    /// Instead of `TEMPLATE_CAMPAIGN_ID`.
    pub template_campaign_id: Option<String>,
    /// Written to the Braze profile with each reply.
    #[serde(default)]
    pub attributes: serde_json::Map<String, serde_json::Value>,
}

/// The WhatsApp relay: what both functions decide by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// `RELAY_ROUTES`
    pub routes: Vec<RouteSettings>,
    /// `BURST_WINDOW_SECONDS`: how long to wait for the next message of a burst.
    pub burst_window: Duration,
    /// `TEMPLATE_CAMPAIGN_ID`: where replies go once the 24-hour window is closed.
    pub template_campaign_id: Option<String>,
    /// `DISCLOSURE_TEXT`: tells a person that a machine answers; `None` = off.
    pub disclosure_text: Option<String>,
    /// Attributes that no answer may write.
    pub reserved: Reserved,
}

impl Rules {
    /// Reads the group.
    pub fn read(env: &mut Env<'_>) -> Self {
        Self {
            routes: routes(env),
            burst_window: env.seconds("BURST_WINDOW_SECONDS", 0),
            template_campaign_id: env.optional("TEMPLATE_CAMPAIGN_ID"),
            disclosure_text: env.optional("DISCLOSURE_TEXT"),
            reserved: Reserved::read(env),
        }
    }
}

/// The WhatsApp relay: what the inbound function decides with.
#[derive(Debug, Clone)]
pub struct InboundSettings {
    /// What the dispatcher decides by as well.
    pub rules: Rules,
    /// `IGNORED_KEYWORDS`: whole messages that Braze handles itself.
    pub ignored_keywords: Vec<String>,
}

impl InboundSettings {
    /// Reads the group.
    pub fn read(env: &mut Env<'_>) -> Self {
        Self {
            rules: Rules::read(env),
            ignored_keywords: env.list("IGNORED_KEYWORDS", "STOP,START"),
        }
    }
}

fn routes(env: &mut Env<'_>) -> Vec<RouteSettings> {
    let text = env.optional("RELAY_ROUTES").unwrap_or_else(|| "[]".to_owned());
    let routes: Vec<RouteSettings> = match serde_json::from_str(&text) {
        Ok(routes) => routes,
        Err(error) => {
            env.problem(format!("RELAY_ROUTES is not a JSON list of routes: {error}"));
            return Vec::new();
        }
    };
    let mut names = BTreeSet::new();
    for route in &routes {
        let name = &route.name;
        if name.trim().is_empty() {
            env.problem("RELAY_ROUTES has a route without a name");
        } else if !names.insert(name) {
            env.problem(format!("RELAY_ROUTES has two routes named `{name}`"));
        }
        if let Some(url) = &route.external_system_url {
            env.check_url(&format!("RELAY_ROUTES, route `{name}`, external_system_url"), url);
        }
        if route.keyword_match == KeywordMatch::Regex {
            for keyword in &route.keywords {
                if let Err(error) = Regex::new(keyword) {
                    env.problem(format!(
                        "RELAY_ROUTES, route `{name}`: `{keyword}` is no regular expression: {error}"
                    ));
                }
            }
        }
    }
    routes
}

/// The WhatsApp relay: what the dispatcher asks and answers with.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// What the inbound function decides by as well.
    pub rules: Rules,
    /// `EXTERNAL_SYSTEM_URL`; `None` = the relay is not used.
    pub external_system_url: Option<String>,
    /// `EXTERNAL_SYSTEM_KIND`
    pub external_system_kind: ExternalSystemKind,
    /// `EXTERNAL_SYSTEM_TIMEOUT_SECONDS`
    pub external_system_timeout: Duration,
    /// `REPLY_CAMPAIGN_ID`
    pub reply_campaign_id: Option<String>,
    /// `TRIGGER_PROPERTY`: carries the reply's text.
    pub trigger_property: String,
    /// `OPENAI_MODEL`
    pub openai_model: Option<String>,
    /// `OPENAI_SYSTEM_PROMPT`
    pub openai_system_prompt: Option<String>,
    /// `OPENAI_TOOLS`: what the model may do beside talking.
    pub openai_tools: BTreeSet<Tool>,
    /// `OPENAI_ATTRIBUTES`: the attributes that the model may set.
    pub openai_attributes: Vec<String>,
    /// `OPENAI_IMAGES`: whether pictures go along.
    pub openai_images: bool,
    /// `FALLBACK_TEXT`: sent once when the external system has failed three times; `None` = off.
    pub fallback_text: Option<String>,
    /// `REPLY_URL`: our `/whatsapp/reply`, told to the external system.
    pub reply_url: Option<String>,
}

/// What a model may do beside talking, as the settings and the model name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Tool {
    /// Let a person at the brand take over.
    HandOff,
    /// Write attributes to the profile.
    SetAttributes,
    /// Send the campaign of a route.
    SendCampaign,
}

fn tools(env: &mut Env<'_>) -> BTreeSet<Tool> {
    let names = env.list("OPENAI_TOOLS", "hand_off");
    let mut tools = BTreeSet::new();
    for name in names {
        match name.parse() {
            Ok(tool) => _ = tools.insert(tool),
            Err(_) => env.problem(format!(
                "OPENAI_TOOLS names `{name}`, but knows only hand_off, set_attributes and send_campaign"
            )),
        }
    }
    tools
}

fn model_attributes(env: &mut Env<'_>, reserved: &Reserved) -> Vec<String> {
    let names = env.list("OPENAI_ATTRIBUTES", "");
    for name in names.iter().filter(|name| reserved.includes(name)) {
        env.problem(format!(
            "OPENAI_ATTRIBUTES names `{name}`, which is the profile's own or the bridge's"
        ));
    }
    names
}

impl RelaySettings {
    /// Reads the group.
    pub fn read(env: &mut Env<'_>) -> Self {
        let rules = Rules::read(env);
        let settings = Self {
            external_system_url: env.optional("EXTERNAL_SYSTEM_URL"),
            external_system_kind: env.parsed(
                "EXTERNAL_SYSTEM_KIND",
                ExternalSystemKind::Webhook,
                "`webhook` or `openai`",
            ),
            external_system_timeout: env.seconds("EXTERNAL_SYSTEM_TIMEOUT_SECONDS", 25),
            reply_campaign_id: env.optional("REPLY_CAMPAIGN_ID"),
            trigger_property: env.or("TRIGGER_PROPERTY", "external_system_msg_body"),
            openai_model: env.optional("OPENAI_MODEL"),
            openai_system_prompt: env.optional("OPENAI_SYSTEM_PROMPT"),
            openai_tools: tools(env),
            openai_attributes: model_attributes(env, &rules.reserved),
            openai_images: env.parsed("OPENAI_IMAGES", false, "`true` or `false`"),
            fallback_text: env.optional("FALLBACK_TEXT"),
            reply_url: env.optional("REPLY_URL"),
            rules,
        };
        for route in &settings.rules.routes {
            let campaign = route
                .reply_campaign_id
                .as_ref()
                .or(settings.reply_campaign_id.as_ref());
            if route.external_system_url.is_some() && campaign.is_none() {
                env.problem(format!(
                    "RELAY_ROUTES, route `{}`: it has an external_system_url, but neither a reply_campaign_id of its \
                     own nor REPLY_CAMPAIGN_ID: replies need a campaign",
                    route.name
                ));
            }
        }
        if let Some(url) = &settings.external_system_url {
            env.check_url("EXTERNAL_SYSTEM_URL", url);
            if settings.reply_campaign_id.is_none() {
                env.problem(
                    "REPLY_CAMPAIGN_ID is not set, but EXTERNAL_SYSTEM_URL is: replies need a campaign",
                );
            }
        }
        let openai = settings.external_system_url.is_some()
            && settings.external_system_kind == ExternalSystemKind::Openai
            || settings
                .rules
                .routes
                .iter()
                .any(|route| route.kind == Some(ExternalSystemKind::Openai));
        if openai && settings.openai_model.is_none() {
            env.problem("OPENAI_MODEL is not set, but an external system of kind `openai` needs it");
        }
        if openai && settings.openai_system_prompt.is_none() {
            env.problem("OPENAI_SYSTEM_PROMPT is not set, but an external system of kind `openai` needs it");
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_with_a_system_of_its_own_needs_a_campaign() {
        let route = |campaign| {
            format!(r#"[{{"name":"shop","external_system_url":"https://shop.example"{campaign}}}]"#)
        };
        let problems = |routes: &str, campaign: &str| {
            let pairs = [("RELAY_ROUTES", routes), ("REPLY_CAMPAIGN_ID", campaign)];
            let read = Env::from_pairs(&pairs).finish(RelaySettings::read);
            read.err().map(|error| error.to_string())
        };
        let bare = route("");
        assert!(problems(&bare, "").unwrap().contains("`shop`"));
        assert_eq!(problems(&bare, "c"), None);
        assert_eq!(problems(&route(r#","reply_campaign_id":"c""#), ""), None);
    }

    #[test]
    fn a_route_with_a_typing_error_is_named() {
        let pairs = [(
            "RELAY_ROUTES",
            r#"[{"name":"a","keywords":["("],"match":"regex"},{"name":"a"}]"#,
        )];
        let error = Env::from_pairs(&pairs)
            .finish(InboundSettings::read)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("two routes named `a`") && error.contains("no regular expression"),
            "{error}"
        );
        let unknown = [("RELAY_ROUTES", r#"[{"name":"a","keyword":"x"}]"#)];
        assert!(Env::from_pairs(&unknown).finish(InboundSettings::read).is_err());
    }

    #[test]
    fn what_a_model_may_do_is_checked() {
        let read = |pairs: &[(&str, &str)]| Env::from_pairs(pairs).finish(RelaySettings::read);
        let settings = read(&[]).unwrap();
        assert_eq!(settings.openai_tools, BTreeSet::from([Tool::HandOff]));
        assert!(settings.openai_attributes.is_empty() && !settings.openai_images);
        assert!(read(&[("OPENAI_TOOLS", "")]).unwrap().openai_tools.is_empty());
        let wrong = [("OPENAI_TOOLS", "hand_of"), ("OPENAI_ATTRIBUTES", "topic,email")];
        let error = read(&wrong).unwrap_err().to_string();
        assert!(
            error.contains("`hand_of`") && error.contains("`email`"),
            "{error}"
        );
    }

    #[test]
    fn an_openai_system_needs_model_and_prompt() {
        let pairs = [
            ("EXTERNAL_SYSTEM_URL", "https://ai.example/v1/"),
            ("EXTERNAL_SYSTEM_KIND", "openai"),
            ("REPLY_CAMPAIGN_ID", "c"),
        ];
        let error = Env::from_pairs(&pairs)
            .finish(RelaySettings::read)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("OPENAI_MODEL") && error.contains("OPENAI_SYSTEM_PROMPT"),
            "{error}"
        );
    }
}
