//! Settings: the environment of a function, read once at start.
//!
//! Every problem is collected and reported together, and the start fails; a request never does. Each
//! function reads only the groups it uses, and [`Env`] remembers the names, so that a test can hold
//! `template.yaml` against the code.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::messenger::event::EVENT_NAMES;

type Lookup<'a> = Box<dyn Fn(&str) -> Option<String> + 'a>;

/// Reads variables and collects what is wrong with them.
pub struct Env<'a> {
    lookup: Lookup<'a>,
    names: BTreeSet<&'static str>,
    problems: Vec<String>,
}

/// Everything that is wrong with the settings, in one error.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the settings are not usable:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

impl std::error::Error for ConfigError {}

impl<'a> Env<'a> {
    /// Reads from the process's environment.
    #[must_use]
    pub fn process() -> Env<'static> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where the environment is read"
        )]
        Env::new(|name| std::env::var(name).ok())
    }

    /// Reads from `lookup`. A variable that is set to blanks counts as not set.
    pub fn new(lookup: impl Fn(&str) -> Option<String> + 'a) -> Env<'a> {
        Env {
            lookup: Box::new(lookup),
            names: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    /// Reads from pairs, for tests and the local stack.
    #[must_use]
    pub fn from_pairs(pairs: &'a [(&'a str, &'a str)]) -> Env<'a> {
        Env::new(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    /// Runs `read` and gives its result, or every problem that was met.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with all problems.
    pub fn finish<T>(mut self, read: impl FnOnce(&mut Self) -> T) -> Result<T, ConfigError> {
        let settings = read(&mut self);
        if self.problems.is_empty() {
            Ok(settings)
        } else {
            Err(ConfigError(self.problems))
        }
    }

    /// The names of all variables that were asked for so far.
    #[must_use]
    pub fn names(&self) -> &BTreeSet<&'static str> {
        &self.names
    }

    /// Notes a problem that only the reader of several settings can see.
    pub fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    /// The variable, if it is set to more than blanks.
    pub fn optional(&mut self, name: &'static str) -> Option<String> {
        self.names.insert(name);
        (self.lookup)(name).filter(|value| !value.trim().is_empty())
    }

    /// The variable; it is a problem if it is not set.
    pub fn required(&mut self, name: &'static str) -> String {
        self.optional(name).unwrap_or_else(|| {
            self.problem(format!("{name} is not set"));
            String::new()
        })
    }

    /// The variable or a default. Unlike the others, `""` is a value here: it switches something off.
    pub fn or(&mut self, name: &'static str, default: &str) -> String {
        self.names.insert(name);
        (self.lookup)(name).map_or_else(|| default.to_owned(), |value| value.trim().to_owned())
    }

    /// The variable read as a `T`, or the default; `expects` says in words what a value looks like.
    pub fn parsed<T: FromStr>(&mut self, name: &'static str, default: T, expects: &str) -> T {
        let Some(value) = self.optional(name) else {
            return default;
        };
        value.trim().parse().unwrap_or_else(|_| {
            self.problem(format!("{name} is `{value}`, but expects {expects}"));
            default
        })
    }

    /// A comma list, without blanks around its members.
    pub fn list(&mut self, name: &'static str, default: &str) -> Vec<String> {
        let value = self.or(name, default);
        value
            .split(',')
            .map(str::trim)
            .filter(|member| !member.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// An `http(s)` URL without a trailing slash.
    pub fn url(&mut self, name: &'static str, default: Option<&str>) -> String {
        let value = self.optional(name).or_else(|| default.map(str::to_owned));
        let Some(value) = value else {
            self.problem(format!("{name} is not set"));
            return String::new();
        };
        self.check_url(name, &value);
        value.trim().trim_end_matches('/').to_owned()
    }

    fn check_url(&mut self, name: &str, value: &str) {
        // Placeholders are filled in later, and a URL cannot hold braces.
        let filled = value.trim().replace(['{', '}'], "");
        match url::Url::parse(&filled) {
            Ok(url) if matches!(url.scheme(), "https" | "http") && url.has_host() => {}
            _ => self.problem(format!("{name} is `{value}`, but expects an http or https URL")),
        }
    }

    fn seconds(&mut self, name: &'static str, default: u64) -> Duration {
        Duration::from_secs(self.parsed(name, default, "a whole number of seconds"))
    }
}

/// Names of the tables.
#[derive(Debug, Clone)]
pub struct Tables;

impl Tables {
    /// `CONTACTS_TABLE`
    pub fn contacts(env: &mut Env<'_>) -> String {
        env.required("CONTACTS_TABLE")
    }
    /// `INSTALLS_TABLE`
    pub fn installs(env: &mut Env<'_>) -> String {
        env.required("INSTALLS_TABLE")
    }
    /// `CONVERSATIONS_TABLE`
    pub fn conversations(env: &mut Env<'_>) -> String {
        env.required("CONVERSATIONS_TABLE")
    }
    /// `OUTBOX_TABLE`
    pub fn outbox(env: &mut Env<'_>) -> String {
        env.required("OUTBOX_TABLE")
    }
}

/// What is sent of people who are not linked to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnlinkedContacts {
    /// An alias-only profile in Braze.
    #[default]
    Alias,
    /// Nothing until they are linked.
    Hold,
}

impl FromStr for UnlinkedContacts {
    type Err = ();

    fn from_str(value: &str) -> Result<Self, ()> {
        match value.to_ascii_lowercase().as_str() {
            "alias" => Ok(Self::Alias),
            "hold" => Ok(Self::Hold),
            _ => Err(()),
        }
    }
}

/// What is kept on the Braze profile of a Messenger or Instagram contact.
#[derive(Debug, Clone)]
pub struct ContactSettings {
    /// `MESSENGER_ID_ATTRIBUTE`; may hold `{account_id}`.
    pub messenger_id_attribute: String,
    /// `INSTAGRAM_ID_ATTRIBUTE`; may hold `{account_id}`.
    pub instagram_id_attribute: String,
    /// `WINDOW_ATTRIBUTE`; `None` = off.
    pub window_attribute: Option<String>,
    /// `WINDOW_SYNC_MINUTES`: the window attribute is refreshed at most this often.
    pub window_sync: Duration,
    /// `UNLINKED_CONTACTS`
    pub unlinked_contacts: UnlinkedContacts,
    /// `MESSENGER_EVENTS`: event kinds that also become custom events.
    pub events: Vec<String>,
    /// `OPT_OUT_KEYWORDS`
    pub opt_out_keywords: Vec<String>,
    /// `OPT_IN_KEYWORDS`
    pub opt_in_keywords: Vec<String>,
}

impl ContactSettings {
    /// Reads the group.
    pub fn read(env: &mut Env<'_>) -> Self {
        let window = env.or("WINDOW_ATTRIBUTE", "messenger_window_closes_at");
        let minutes: u64 = env.parsed("WINDOW_SYNC_MINUTES", 60, "a whole number of minutes");
        Self {
            messenger_id_attribute: env.or("MESSENGER_ID_ATTRIBUTE", "messenger_id"),
            instagram_id_attribute: env.or("INSTAGRAM_ID_ATTRIBUTE", "instagram_id"),
            window_attribute: Some(window).filter(|name| !name.is_empty()),
            window_sync: Duration::from_secs(minutes * 60),
            unlinked_contacts: env.parsed("UNLINKED_CONTACTS", UnlinkedContacts::Alias, "`alias` or `hold`"),
            events: events(env),
            opt_out_keywords: env.list("OPT_OUT_KEYWORDS", "STOP,UNSUBSCRIBE"),
            opt_in_keywords: env.list("OPT_IN_KEYWORDS", "START"),
        }
    }
}

fn events(env: &mut Env<'_>) -> Vec<String> {
    let events: Vec<String> = env
        .list("MESSENGER_EVENTS", "")
        .into_iter()
        .map(|event| event.to_ascii_lowercase())
        .collect();
    for event in &events {
        if !EVENT_NAMES.contains(&event.as_str()) {
            let known = EVENT_NAMES.join(", ");
            env.problem(format!(
                "MESSENGER_EVENTS names `{event}`, but knows only {known}"
            ));
        }
    }
    events
}

/// Where Meta's Graph API is.
#[derive(Debug, Clone)]
pub struct GraphSettings {
    /// `GRAPH_API_URL`, without a trailing slash.
    pub url: String,
    /// `GRAPH_API_VERSION`, such as `v25.0`.
    pub version: String,
}

impl GraphSettings {
    /// Reads the group.
    pub fn read(env: &mut Env<'_>) -> Self {
        let url = env.url("GRAPH_API_URL", Some("https://graph.facebook.com"));
        let version = env.or("GRAPH_API_VERSION", "v25.0");
        let digits = version.strip_prefix('v').and_then(|rest| rest.split_once('.'));
        if !digits.is_some_and(|(major, minor)| major.parse::<u16>().is_ok() && minor.parse::<u16>().is_ok())
        {
            env.problem(format!(
                "GRAPH_API_VERSION is `{version}`, but expects a version such as `v25.0`"
            ));
        }
        Self { url, version }
    }
}

/// Where Braze is. `BRAZE_REST_ENDPOINT` has no default: a valid key on another instance is refused there.
pub fn braze_rest_endpoint(env: &mut Env<'_>) -> String {
    env.url("BRAZE_REST_ENDPOINT", None)
}

/// How long and how often an outbox item is tried again.
#[derive(Debug, Clone, Copy)]
pub struct RetrySettings {
    /// `RETRY_BASE_SECONDS`: the first step of the backoff, doubling to an hour.
    pub base: Duration,
    /// `RETRY_FOR_HOURS`: afterwards an item is dead.
    pub keep_trying: Duration,
}

impl RetrySettings {
    /// Reads the group.
    pub fn read(env: &mut Env<'_>) -> Self {
        let base = env.seconds("RETRY_BASE_SECONDS", 60);
        let hours: u64 = env.parsed("RETRY_FOR_HOURS", 36, "a whole number of hours");
        if base.is_zero() {
            env.problem("RETRY_BASE_SECONDS is 0, but expects at least 1");
        }
        Self {
            base,
            keep_trying: Duration::from_secs(hours * 3600),
        }
    }
}

/// Which system answers WhatsApp messages, and how it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExternalSystemKind {
    /// Our own JSON, signed by the Standard Webhooks headers.
    #[default]
    Webhook,
    /// Any OpenAI-compatible `/chat/completions`.
    Openai,
}

impl FromStr for ExternalSystemKind {
    type Err = ();

    fn from_str(value: &str) -> Result<Self, ()> {
        match value.to_ascii_lowercase().as_str() {
            "webhook" => Ok(Self::Webhook),
            "openai" => Ok(Self::Openai),
            _ => Err(()),
        }
    }
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
    #[serde(default)]
    pub external_system_url: Option<String>,
    /// Instead of `EXTERNAL_SYSTEM_KIND`.
    #[serde(default)]
    pub kind: Option<ExternalSystemKind>,
    /// Instead of `REPLY_CAMPAIGN_ID`.
    #[serde(default)]
    pub reply_campaign_id: Option<String>,
    /// Instead of `TEMPLATE_CAMPAIGN_ID`.
    #[serde(default)]
    pub template_campaign_id: Option<String>,
    /// Written to the Braze profile with each reply.
    #[serde(default)]
    pub attributes: serde_json::Map<String, serde_json::Value>,
}

/// The WhatsApp relay: what the inbound function decides with.
#[derive(Debug, Clone)]
pub struct InboundSettings {
    /// `RELAY_ROUTES`
    pub routes: Vec<RouteSettings>,
    /// `IGNORED_KEYWORDS`: whole messages that Braze handles itself.
    pub ignored_keywords: Vec<String>,
    /// `BURST_WINDOW_SECONDS`: how long to wait for the next message of a burst.
    pub burst_window: Duration,
    /// `TEMPLATE_CAMPAIGN_ID`: where replies go once the 24-hour window is closed.
    pub template_campaign_id: Option<String>,
}

impl InboundSettings {
    /// Reads the group.
    pub fn read(env: &mut Env<'_>) -> Self {
        Self {
            routes: routes(env),
            ignored_keywords: env.list("IGNORED_KEYWORDS", "STOP,START"),
            burst_window: env.seconds("BURST_WINDOW_SECONDS", 0),
            template_campaign_id: env.optional("TEMPLATE_CAMPAIGN_ID"),
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
    /// `EXTERNAL_SYSTEM_URL`; `None` = the relay is not used.
    pub external_system_url: Option<String>,
    /// `EXTERNAL_SYSTEM_KIND`
    pub external_system_kind: ExternalSystemKind,
    /// `EXTERNAL_SYSTEM_TIMEOUT_SECONDS`
    pub external_system_timeout: Duration,
    /// `REPLY_CAMPAIGN_ID`
    pub reply_campaign_id: Option<String>,
    /// `TEMPLATE_CAMPAIGN_ID`
    pub template_campaign_id: Option<String>,
    /// `TRIGGER_PROPERTY`: carries the reply's text.
    pub trigger_property: String,
    /// `RELAY_ROUTES`
    pub routes: Vec<RouteSettings>,
    /// `OPENAI_MODEL`
    pub openai_model: Option<String>,
    /// `OPENAI_SYSTEM_PROMPT`
    pub openai_system_prompt: Option<String>,
    /// `BURST_WINDOW_SECONDS`
    pub burst_window: Duration,
    /// `FALLBACK_TEXT`: sent once when the external system has failed three times; `None` = off.
    pub fallback_text: Option<String>,
    /// `REPLY_URL`: our `/whatsapp/reply`, told to the external system.
    pub reply_url: Option<String>,
}

impl RelaySettings {
    /// Reads the group.
    pub fn read(env: &mut Env<'_>) -> Self {
        let settings = Self {
            external_system_url: env
                .optional("EXTERNAL_SYSTEM_URL")
                .map(|url| url.trim_end_matches('/').to_owned()),
            external_system_kind: env.parsed(
                "EXTERNAL_SYSTEM_KIND",
                ExternalSystemKind::Webhook,
                "`webhook` or `openai`",
            ),
            external_system_timeout: env.seconds("EXTERNAL_SYSTEM_TIMEOUT_SECONDS", 25),
            reply_campaign_id: env.optional("REPLY_CAMPAIGN_ID"),
            template_campaign_id: env.optional("TEMPLATE_CAMPAIGN_ID"),
            trigger_property: env.or("TRIGGER_PROPERTY", "external_system_msg_body"),
            routes: routes(env),
            openai_model: env.optional("OPENAI_MODEL"),
            openai_system_prompt: env.optional("OPENAI_SYSTEM_PROMPT"),
            burst_window: env.seconds("BURST_WINDOW_SECONDS", 0),
            fallback_text: env.optional("FALLBACK_TEXT"),
            reply_url: env.optional("REPLY_URL"),
        };
        for route in &settings.routes {
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

/// FBE follow-ups.
#[derive(Debug, Clone)]
pub struct FbeSettings {
    /// `FBE_SCOPES` for the token exchange, as a comma list.
    pub scopes: Vec<String>,
    /// `CATALOG_FEED_URL`; may hold `{external_business_id}` and `{catalog_id}`; `None` = no push.
    pub catalog_feed_url: Option<String>,
}

impl FbeSettings {
    /// Reads the group.
    pub fn read(env: &mut Env<'_>) -> Self {
        let catalog_feed_url = env.optional("CATALOG_FEED_URL");
        if let Some(url) = &catalog_feed_url {
            env.check_url("CATALOG_FEED_URL", url);
        }
        Self {
            scopes: env.list("FBE_SCOPES", "manage_business_extension"),
            catalog_feed_url,
        }
    }
}

/// Where the businesses' own secrets are.
#[derive(Debug, Clone)]
pub struct FbeSecretSettings {
    /// `FBE_SECRET_PREFIX`, such as `<stack>/fbe/`.
    pub prefix: String,
    /// `ENCRYPTION_KEY_ARN`: the KMS key that new secrets are encrypted with; `None` = Secrets Manager's own.
    pub encryption_key: Option<String>,
}

impl FbeSecretSettings {
    /// Reads the group.
    pub fn read(env: &mut Env<'_>) -> Self {
        Self {
            prefix: env.required("FBE_SECRET_PREFIX"),
            encryption_key: env.optional("ENCRYPTION_KEY_ARN"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_documented_ones() {
        let settings = Env::from_pairs(&[]).finish(ContactSettings::read).unwrap();
        assert_eq!(settings.messenger_id_attribute, "messenger_id");
        assert_eq!(
            settings.window_attribute.as_deref(),
            Some("messenger_window_closes_at")
        );
        assert_eq!(settings.window_sync, Duration::from_hours(1));
        assert_eq!(settings.opt_out_keywords, ["STOP", "UNSUBSCRIBE"]);
        assert!(settings.events.is_empty());
    }

    #[test]
    fn an_event_that_does_not_exist_is_named() {
        let pairs = [("MESSENGER_EVENTS", "message, massage")];
        let error = Env::from_pairs(&pairs)
            .finish(ContactSettings::read)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`massage`") && error.contains("postback"),
            "{error}"
        );
    }

    #[test]
    fn an_empty_window_attribute_switches_it_off() {
        let settings = Env::from_pairs(&[("WINDOW_ATTRIBUTE", "")])
            .finish(ContactSettings::read)
            .unwrap();
        assert_eq!(settings.window_attribute, None);
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let pairs = [
            ("RETRY_BASE_SECONDS", "soon"),
            ("GRAPH_API_VERSION", "25"),
            ("UNLINKED_CONTACTS", "drop"),
        ];
        let error = Env::from_pairs(&pairs)
            .finish(|env| {
                braze_rest_endpoint(env);
                RetrySettings::read(env);
                GraphSettings::read(env);
                ContactSettings::read(env);
            })
            .unwrap_err()
            .to_string();
        for part in [
            "BRAZE_REST_ENDPOINT is not set",
            "RETRY_BASE_SECONDS",
            "GRAPH_API_VERSION",
            "`alias` or `hold`",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

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
