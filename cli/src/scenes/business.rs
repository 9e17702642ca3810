//! One business in a scene, as the bridge, Graph, Braze and the partner's platform see it, and what must have come of a
//! step.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use shared::fbe::install::{Install, Status};
use shared::fbe::plan::reconcile_item;
use shared::fbe::secret;
use shared::fbe::secrets::BusinessSecrets;
use shared::fbe::settings::FbeSecretSettings;
use shared::fbe::table::{Installs, Stored};
use shared::outbox::Outbox;
use shared::sdk_error;
use testkit::braze::{CustomEvent, FakeBraze};
use testkit::graph::FakeGraph;
use testkit::partner::FakePartner;

use crate::inspect::{self, INSTALLS, OUTBOX};
use crate::payloads::{self, Payload, Sender};
use crate::secrets::{self, STACK_NAME};
use crate::stack::LocalStack;
use crate::story::Mark;

/// A business of its own: the recorded one has been through all the other payloads.
pub(super) const BUSINESS: &str = "demo-life-shop";
/// What only one business may have. The recorded values give way to these.
const OWN: [(&str, &str); 4] = [
    ("shop-42-unique-id", BUSINESS),
    ("973766133343161", "973766133343999"),
    ("1964583793745557", "1964583793745999"),
    ("EAAB_", "EAAB_life_"),
];
/// How long what follows from one step may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// One step of the scene, as it went.
#[derive(Debug)]
pub(crate) struct Step {
    /// What happened, and what the gateway answered.
    pub(crate) title: String,
    /// What came of it, one line each. Holds no token.
    pub(crate) lines: Vec<String>,
    /// What should have come of it and did not.
    pub(crate) deviations: Vec<String>,
}

/// Features that are off, with what each lacks.
type Off = BTreeMap<String, String>;

/// What must have come of a step.
pub(super) struct Expected {
    /// The notice's `change`, of exactly one new notice; empty: there is none.
    pub(super) change: &'static str,
    pub(super) on: &'static [&'static str],
    pub(super) off: &'static [(&'static str, &'static str)],
    /// Assets in which Graph must have been found to differ.
    pub(super) drift: &'static [&'static str],
    pub(super) installed: bool,
}

pub(super) struct Scene<'a> {
    stack: &'a LocalStack,
    client: &'a reqwest::Client,
    pub(super) graph: &'a FakeGraph,
    braze: &'a FakeBraze,
    partner: &'a FakePartner,
    outbox: Outbox,
    installs: Installs,
    secrets: BusinessSecrets,
}

/// What was there before a step.
pub(super) struct Before {
    fakes: Mark,
    notices: usize,
    /// At the partner's platform.
    partner: usize,
}

impl<'a> Scene<'a> {
    pub(super) fn of(stack: &'a LocalStack, client: &'a reqwest::Client) -> anyhow::Result<Self> {
        let table = |logical_id: &str| {
            let table = stack.template().table(logical_id);
            let table = table.with_context(|| format!("the template has no {logical_id}"))?;
            anyhow::Ok(table.name.clone())
        };
        let fakes = stack.fakes();
        let clock = stack.clock();
        let outbox = Outbox::new(stack.dynamodb().clone(), table(OUTBOX)?, clock.clone());
        let own = FbeSecretSettings {
            prefix: format!("{STACK_NAME}/fbe/"),
            encryption_key: None,
        };
        Ok(Self {
            stack,
            client,
            graph: fakes.graph.as_deref().context("Graph is not played here")?,
            braze: fakes.braze.as_ref().context("Braze is not played here")?,
            partner: fakes
                .partner
                .as_ref()
                .context("the partner's platform is not played here")?,
            installs: Installs::new(table(INSTALLS)?, outbox.clone()),
            outbox,
            secrets: BusinessSecrets::new(stack.aws().secrets_manager(), own),
        })
    }

    pub(super) fn mark(&self) -> Before {
        Before {
            fakes: Mark::of(self.stack.fakes()),
            notices: self.notices().len(),
            partner: self.told_partner().len(),
        }
    }

    fn notices(&self) -> Vec<CustomEvent> {
        let profile = self.braze.profile(BUSINESS);
        profile.map(|profile| profile.events).unwrap_or_default()
    }

    /// The changes of this business that the partner's platform was notified of.
    fn told_partner(&self) -> Vec<String> {
        let notices = self.partner.notices().into_iter();
        let text = |body: &Value, name: &str| {
            let text = body.pointer(&format!("/data/{name}")).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        notices
            .filter(|notice| text(&notice.body, "business") == BUSINESS)
            .map(|notice| text(&notice.body, "change"))
            .collect()
    }

    /// Whether another Business Manager claims the business.
    pub(super) async fn claims(&self, step: &mut Step, expected: bool) -> anyhow::Result<()> {
        let stored = self.installs.read(BUSINESS).await?;
        let install = stored.context("the business is not stored")?.install;
        let claims: Vec<&str> = install
            .claims()
            .iter()
            .filter_map(|claim| claim.business_manager_id.as_deref())
            .collect();
        step.line(format_args!(
            "claims  {}",
            if claims.is_empty() {
                "none".to_owned()
            } else {
                format!("of Business Manager {}", claims.join(", "))
            }
        ));
        if claims.is_empty() == expected {
            step.is_off("the other Business Manager's claim is not as it should be");
        }
        Ok(())
    }

    /// Posts a recorded webhook as this business's, signed, as if it happened at `at`. Gives the status.
    pub(super) async fn post(&self, case: &str, at: Timestamp) -> anyhow::Result<u16> {
        let payload = own(case, at)?;
        let mut request = self
            .client
            .post(format!("{}{}", self.stack.url(), payload.sender.path()));
        for (name, value) in payload.headers(&secrets::development_credential(payload.sender)) {
            request = request.header(name, value);
        }
        let answer = request.body(payload.body).send().await;
        let status = answer.context("the embedded stack does not answer")?.status();
        Ok(status.as_u16())
    }

    /// Changes what Graph says without a webhook, and asks for a comparison as `bridge fbe reconcile` does.
    pub(super) async fn drift(&self) -> anyhow::Result<()> {
        let mut install = self.graph.install(BUSINESS).context("Graph knows no install")?;
        without_ad_account(&mut install);
        self.graph.change_install(BUSINESS, Some(install));
        self.compare().await
    }

    pub(super) async fn compare(&self) -> anyhow::Result<()> {
        let item = reconcile_item(BUSINESS, "demand", self.stack.clock().now(), None);
        self.outbox.add(&item).await?;
        Ok(())
    }

    /// Waits for what follows, and compares it with what is expected.
    pub(super) async fn step(
        &self,
        title: String,
        before: Before,
        expected: &Expected,
    ) -> anyhow::Result<Step> {
        let mut step = Step {
            title,
            lines: Vec::new(),
            deviations: Vec::new(),
        };
        if !inspect::drained(self.stack, PATIENCE).await? {
            step.is_off(format_args!(
                "the outbox is not drained after {} s",
                PATIENCE.as_secs()
            ));
        }
        let stored = self.installs.read(BUSINESS).await?;
        let stored = stored.context("the business is not stored")?;
        let mut fakes = before.fakes;
        let news = fakes.news(self.stack.fakes());
        step.lines
            .extend(news.into_iter().filter(|line| line.starts_with("graph")));
        step.features(&stored.install, expected);
        step.drift(&stored.install, expected);
        step.notices(self.notices().get(before.notices..).unwrap_or_default(), expected);
        step.partner(
            self.told_partner().get(before.partner..).unwrap_or_default(),
            expected,
        );
        self.token(&mut step, &stored.install, expected).await?;
        self.catalog(&mut step, &stored, expected);
        Ok(step)
    }

    /// The state of the token, which is compared and never shown.
    async fn token(&self, step: &mut Step, install: &Install, expected: &Expected) -> anyhow::Result<()> {
        let secret = self.secrets.current(BUSINESS).await?;
        let kept = secret.as_ref().and_then(|secret| secret.token());
        if !expected.installed {
            let scheduled = self.is_scheduled_for_deletion().await?;
            step.line(match (kept, scheduled) {
                (None, true) => "token   gone, its secret is scheduled for deletion",
                (None, false) => "token   gone, and no secret",
                (Some(_), _) => "token   still kept",
            });
            if install.token.is_some() || !scheduled {
                step.is_off("the token has outlived the removal");
            }
            return Ok(());
        }
        let state = install.token.as_ref();
        step.line(match state {
            None => "token   none".to_owned(),
            Some(state) => format!(
                "token   came as {}, {}{}",
                String::from(state.token_type.clone()),
                if state.exchanged_at.is_some() {
                    "exchanged for a system user's"
                } else {
                    "not exchanged"
                },
                if state.invalid_since.is_some() {
                    ", refused"
                } else {
                    ", in force"
                },
            ),
        });
        // One for each webhook: the fake begins its list anew with each.
        let issued = self.graph.issued_tokens(BUSINESS);
        let kept = kept.map(|token| token.expose_secret().to_owned());
        if issued.len() != 1 || kept.as_ref() != issued.last() {
            step.is_off("the secret does not hold the one token that Graph issued");
        }
        if !state.is_some_and(|state| state.exchanged_at.is_some() && state.invalid_since.is_none()) {
            step.is_off("the person's token was not exchanged");
        }
        Ok(())
    }

    async fn is_scheduled_for_deletion(&self) -> anyhow::Result<bool> {
        let id = secret::name(&format!("{STACK_NAME}/fbe/"), BUSINESS);
        let client = self.stack.aws().secrets_manager();
        match client.get_secret_value().secret_id(&id).send().await {
            Ok(_) => Ok(false),
            Err(error) => match error.as_service_error() {
                Some(refusal) if refusal.is_invalid_request_exception() => Ok(true),
                Some(refusal) if refusal.is_resource_not_found_exception() => Ok(false),
                _ => bail!(
                    "the secret {id} cannot be looked up: {}",
                    sdk_error::reason(&error)
                ),
            },
        }
    }

    fn catalog(&self, step: &mut Step, stored: &Stored, expected: &Expected) {
        if !expected.installed {
            return;
        }
        let feed = self.stack.settings().get("CATALOG_FEED_URL");
        let finished = stored
            .push
            .as_ref()
            .is_some_and(|push| push.finished_at.is_some());
        match feed.is_some_and(|url| !url.is_empty()) {
            true if finished => step.line("catalog pushed"),
            true => step.is_off("the catalog was not pushed"),
            false if stored.push.is_some() => step.is_off("a catalog was pushed without a feed"),
            false => step.line("catalog not pushed: no feed is configured"),
        }
    }
}

impl Step {
    fn line(&mut self, text: impl Display) {
        self.lines.push(text.to_string());
    }

    fn is_off(&mut self, text: impl Display) {
        self.deviations.push(format!("the life of {BUSINESS}: {text}"));
    }

    fn features(&mut self, install: &Install, expected: &Expected) {
        let gating = install.gating();
        let on: BTreeSet<String> = gating.enabled.into_iter().collect();
        let off: Off = gating
            .disabled
            .into_iter()
            .map(|one| (one.feature, one.missing))
            .collect();
        self.line(format_args!("on      {}", listed(&on)));
        self.line(if expected.installed {
            format!("off     {}", lacking(&off))
        } else {
            "off     everything: the app is not installed".to_owned()
        });
        let status = if expected.installed {
            Status::Active
        } else {
            Status::Uninstalled
        };
        if install.status != status {
            self.is_off(format_args!("it is {:?} instead of {status:?}", install.status));
        }
        // A removed business has no features that could be off; the notice says what went.
        let wanted_off = if expected.installed { expected.off } else { &[] };
        if on != set(expected.on) || off != map(wanted_off) {
            self.is_off(format_args!(
                "expected on: {}; off: {}",
                listed(&set(expected.on)),
                lacking(&map(wanted_off))
            ));
        }
    }

    fn drift(&mut self, install: &Install, expected: &Expected) {
        let found: BTreeSet<String> = install.drift.iter().map(|drift| drift.field.clone()).collect();
        if !expected.installed {
            return;
        }
        if install.reconciled_at.is_none() {
            self.is_off("it was never compared with Graph");
        }
        self.line(format_args!(
            "compared with Graph: {}",
            if found.is_empty() {
                "no drift".to_owned()
            } else {
                format!("{} drifted", listed(&found))
            }
        ));
        let wanted = set(expected.drift);
        if !wanted.is_subset(&found) || (wanted.is_empty() && install.drift_count > 0) {
            self.is_off(format_args!("expected drift of {}", listed(&wanted)));
        }
    }

    fn notices(&mut self, new: &[CustomEvent], expected: &Expected) {
        for notice in new {
            let (change, on, off) = told(notice);
            self.line(format_args!(
                "notice  {} {change}: on {}; off {}",
                notice.name,
                listed(&on),
                lacking(&off)
            ));
        }
        let wanted = (expected.change.to_owned(), set(expected.on), map(expected.off));
        if expected.change.is_empty() && new.is_empty() {
            return;
        }
        let is_right = match new {
            [notice] => notice.name == "fbe_install_updated" && told(notice) == wanted,
            _ => false,
        };
        if !is_right {
            self.is_off(format_args!(
                "expected one notice: {}: on {}; off {}",
                wanted.0,
                listed(&wanted.1),
                lacking(&wanted.2)
            ));
        }
    }
}

impl Step {
    /// The partner's platform is notified like the business.
    fn partner(&mut self, new: &[String], expected: &Expected) {
        for change in new {
            self.line(format_args!(
                "partner fbe.install.updated {change}, its signature is right"
            ));
        }
        let wanted: Vec<&str> = Some(expected.change)
            .into_iter()
            .filter(|change| !change.is_empty())
            .collect();
        if new != wanted {
            self.is_off(format_args!(
                "the partner's platform was told {new:?} instead of {wanted:?}"
            ));
        }
    }
}

/// A recorded payload as this business's.
fn own(case: &str, at: Timestamp) -> anyhow::Result<Payload> {
    let recorded = payloads::recorded(Sender::Fbe);
    let mut payload = recorded
        .into_iter()
        .find(|payload| payload.name == case)
        .with_context(|| format!("there is no recorded case {case}"))?;
    let mut text = String::from_utf8(payload.body).with_context(|| format!("{case} is no text"))?;
    for (recorded, own) in OWN {
        text = text.replace(recorded, own);
    }
    let mut body: Value = serde_json::from_str(&text).with_context(|| format!("{case} is no JSON"))?;
    let time = body
        .pointer_mut("/entry/0/time")
        .with_context(|| format!("{case} has no time"))?;
    *time = json!(at.as_second());
    payload.body = body.to_string().into_bytes();
    Ok(payload)
}

/// What Graph says of an install, once the ad account is withdrawn.
fn without_ad_account(install: &mut Value) {
    const FIELD: &str = "ad_account_id";
    let Some(fields) = install.as_object_mut() else {
        return;
    };
    // This is how Graph writes that there is none.
    fields.insert(FIELD.to_owned(), json!("0"));
    let features = fields.get_mut("installed_features").and_then(Value::as_array_mut);
    for feature in features.into_iter().flatten() {
        let connected = feature.get_mut("connected_assets").and_then(Value::as_object_mut);
        if let Some(connected) = connected {
            connected.remove(FIELD);
        }
    }
}

/// What a notice says: the change, and what is on and off.
fn told(notice: &CustomEvent) -> (String, BTreeSet<String>, Off) {
    let property = |name: &str| notice.properties.get(name).unwrap_or(&Value::Null);
    let list = |name: &str| property(name).as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |one: &Value, name: &str| one.get(name).map(text).unwrap_or_default();
    (
        text(property("change")),
        list("enabled").map(text).collect(),
        list("disabled")
            .map(|one| (of(one, "feature"), of(one, "missing")))
            .collect(),
    )
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn map(pairs: &[(&str, &str)]) -> Off {
    pairs
        .iter()
        .map(|(feature, missing)| ((*feature).to_owned(), (*missing).to_owned()))
        .collect()
}

fn listed(names: &BTreeSet<String>) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.join(", ")
}

fn lacking(off: &Off) -> String {
    if off.is_empty() {
        return "nothing".to_owned();
    }
    let off: Vec<String> = off
        .iter()
        .map(|(feature, missing)| format!("{feature} ({missing} is missing)"))
        .collect();
    off.join(", ")
}
