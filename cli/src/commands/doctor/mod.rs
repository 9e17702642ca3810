//! `bridge doctor`

mod first_message;
mod graph;
mod outbox;
mod services;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::bail;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::health::{Check, Status};
use shared::secrets::{BrazeSecret, LinkSecret, MetaSecret, PartnerSecret, RelaySecret};

use crate::hidden::Hidden;
use crate::output;
use crate::probe::{Area, Keys, Probe, Verdict};
use crate::target::{Target, TargetArgs};

const FILL_IN: &str = "`bridge setup` asks for what is empty; see \"Secrets\" in docs/operations.md";

/// Check that everything is set up, here, at Meta and at Braze, and say what to do where it is not
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Changes nothing. `fail` = a job does not work, `warn` = something to do before it stops working.\n\
    Exit code 0 if nothing fails.\n\n\
    Examples:\n  \
    bridge doctor\n  \
    bridge doctor --stack meta-braze-bridge-dev --wait 300\n  \
    bridge doctor --stack meta-braze-bridge-dev --json | jq '.checks[] | select(.status != \"ok\")'"
)]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,

    /// One JSON object: {"ok":…,"checks":[{"name":…,"status":…,"message":…,"remedy":…}]}
    #[arg(long)]
    json: bool,

    /// Then wait so long for the first real message, and show its way
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
}

pub(crate) async fn run(args: Args, clock: &Clock) -> anyhow::Result<()> {
    let target = args.target.open().await?;
    let checks = Box::pin(diagnose(&target, clock)).await;
    if !args.json {
        print(&checks);
    }
    let failed = failures(&checks);
    let message = match args.wait {
        None => None,
        Some(seconds) => {
            let waiting = first_message::wait(&target, clock, Duration::from_secs(seconds), args.json);
            Some(Box::pin(waiting).await?)
        }
    };
    if args.json {
        let mut report = report(&checks);
        if let (Some(message), Some(report)) = (&message, report.as_object_mut()) {
            report.insert("first_message".to_owned(), message.clone().unwrap_or_default());
        }
        output::line(serde_json::to_string_pretty(&report)?);
    }
    if failed > 0 {
        bail!("{failed} of {} checks failed", checks.len());
    }
    if message.is_some_and(|message| message.is_none()) {
        bail!("no message came in time; {}", first_message::NOTHING_COMES);
    }
    Ok(())
}

/// How many checks failed.
pub(crate) fn failures(checks: &[Check]) -> usize {
    checks.iter().filter(|check| check.status == Status::Fail).count()
}

/// The checks for scripts.
pub(crate) fn report(checks: &[Check]) -> Value {
    json!({"ok": failures(checks) == 0, "checks": checks})
}

/// The checks for people, one a line.
pub(crate) fn print(checks: &[Check]) {
    for check in checks {
        let status = match check.status {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "fail",
        };
        let remedy = check.remedy.as_deref().map(|remedy| format!(" - {remedy}"));
        let remedy = remedy.unwrap_or_default();
        output::line(format_args!(
            "{status:<4}  {}: {}{remedy}",
            check.name, check.message
        ));
    }
}

/// The secrets, as far as they can be read.
#[derive(Default)]
struct Known {
    meta: Option<MetaSecret>,
    braze: Option<BrazeSecret>,
    relay: Option<RelaySecret>,
}

/// Makes every check. Changes nothing anywhere.
pub(crate) async fn diagnose(target: &Target, clock: &Clock) -> Vec<Check> {
    let mut hidden = Hidden::default();
    let mut checks = vec![settings(target, clock)];
    let (known, secrets) = secrets(target, &mut hidden).await;
    checks.push(secrets);
    checks.extend(endpoints(target, &known, clock).await);
    checks.extend(Box::pin(graph::checks(target, known.meta.as_ref(), clock.now())).await);
    checks.push(services::clock(target, clock).await);
    checks.extend(services::braze(target, known.braze.as_ref()).await);
    checks.push(services::external_system(target, known.relay.as_ref()).await);
    checks.extend(Box::pin(outbox::checks(target, clock)).await);
    for check in &mut checks {
        check.message = hidden.clean(&check.message);
        check.remedy = check.remedy.as_deref().map(|remedy| hidden.clean(remedy));
    }
    checks
}

fn settings(target: &Target, clock: &Clock) -> Check {
    let problems = target.problems(clock);
    if problems.is_empty() {
        return Check::ok(
            "settings",
            format!("{}: every function starts with its settings", target.name),
        );
    }
    let remedy = if target.is_local {
        "start `bridge local` with other settings (--set NAME=VALUE); docs/reference.md lists them"
    } else {
        "deploy with other parameters; docs/reference.md lists them"
    };
    Check::fail("settings", problems.join("; "), remedy)
}

async fn secrets(target: &Target, hidden: &mut Hidden) -> (Known, Check) {
    let (mut known, mut problems) = (Known::default(), Vec::new());
    for name in crate::secrets::NAMES {
        if let Ok(fields) = target.secrets.fields(name).await {
            hidden.add_fields(&fields);
        }
    }
    let mut look = |name: &str, filled: &[(&str, &str)]| {
        for (field, value) in filled {
            if value.trim().is_empty() {
                problems.push(format!("{field} of the {name} secret is empty"));
            }
        }
    };
    let mut unreadable = Vec::new();
    match target.secrets.read::<MetaSecret>("meta", "MetaSecretName").await {
        Ok(meta) => {
            look(
                "meta",
                &[
                    ("app_id", &meta.app_id),
                    ("app_secret", meta.app_secret.expose_secret()),
                    ("verify_token", meta.verify_token.expose_secret()),
                ],
            );
            known.meta = Some(meta);
        }
        Err(error) => unreadable.push(format!("{error:#}")),
    }
    match target
        .secrets
        .read::<BrazeSecret>("braze", "BrazeSecretName")
        .await
    {
        Ok(braze) => {
            look("braze", &[("api_key", braze.api_key.expose_secret())]);
            known.braze = Some(braze);
        }
        Err(error) => unreadable.push(format!("{error:#}")),
    }
    match target
        .secrets
        .read::<RelaySecret>("relay", "RelaySecretName")
        .await
    {
        Ok(relay) => {
            look(
                "relay",
                &[
                    ("inbound_token", relay.inbound_token.expose_secret()),
                    ("signing_secret", relay.signing_secret.expose_secret()),
                ],
            );
            known.relay = Some(relay);
        }
        Err(error) => unreadable.push(format!("{error:#}")),
    }
    match target.secrets.read::<LinkSecret>("link", "LinkSecretName").await {
        Ok(link) => look("link", &[("signing_key", link.signing_key.expose_secret())]),
        Err(error) => unreadable.push(format!("{error:#}")),
    }
    match target
        .secrets
        .read::<PartnerSecret>("partner", "PartnerSecretName")
        .await
    {
        Ok(partner) => look(
            "partner",
            &[
                ("api_token", partner.api_token.expose_secret()),
                ("signing_secret", partner.signing_secret.expose_secret()),
            ],
        ),
        Err(error) => unreadable.push(format!("{error:#}")),
    }
    problems.extend(unreadable);
    let check = if problems.is_empty() {
        Check::ok("secrets", "all five can be read and are filled in")
    } else {
        Check::fail("secrets", problems.join("; "), FILL_IN)
    };
    (known, check)
}

/// `handshake` and `signature`, by the requests of `bridge smoke`.
async fn endpoints(target: &Target, known: &Known, clock: &Clock) -> Vec<Check> {
    let keys = match (&known.meta, &known.relay) {
        (Some(meta), Some(relay)) => Keys::new(meta, relay),
        _ => Err(anyhow::anyhow!("a secret cannot be read")),
    };
    let verdicts = match keys {
        Ok(keys) => {
            let probe = Probe::new(target.urls.clone(), keys, reqwest::header::HeaderMap::new());
            Box::pin(probe.run(clock.now())).await
        }
        Err(error) => {
            return ["handshake", "signature"]
                .map(|name| Check::fail(name, format!("not tried: {error:#}"), FILL_IN))
                .to_vec();
        }
    };
    vec![
        endpoint("handshake", Area::Handshake, &verdicts),
        endpoint("signature", Area::Signature, &verdicts),
    ]
}

fn endpoint(name: &str, area: Area, verdicts: &[Verdict]) -> Check {
    let of_area = verdicts.iter().filter(|verdict| verdict.area == area);
    let problems: Vec<_> = of_area
        .clone()
        .filter_map(|verdict| Some((verdict.name, verdict.problem.as_ref()?)))
        .collect();
    let Some((_, first)) = problems.first() else {
        return Check::ok(
            name,
            format!("{} requests are answered as they should", of_area.count()),
        );
    };
    let what: Vec<String> = problems
        .iter()
        .map(|(name, problem)| format!("{name}: {}", problem.what))
        .collect();
    Check::fail(name, what.join("; "), first.hint)
}
