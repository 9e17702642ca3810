//! `bridge fbe uninstall`: the end of an install that no webhook has ended.

use anyhow::bail;
use shared::clock::Clock;
use shared::fbe::decide::{decide, removal};
use shared::fbe::settings::Configured;

use super::configuration::Configuration;
use super::{GraphArgs, Parts, Place, ROUNDS};
use crate::output;

/// Ends the install here and, with `graph`, at Meta before that.
pub(super) async fn uninstall(
    place: &Place,
    clock: &Clock,
    graph: Option<&GraphArgs>,
    business: &str,
    dry_run: bool,
) -> anyhow::Result<()> {
    let parts = place.open(clock).await?;
    let install = parts.installed(business).await?;
    if dry_run {
        if graph.is_some() {
            output::line(format_args!("at Meta: the app would be removed from {business}"));
        }
        let on = install.gating().enabled;
        output::line(format_args!("off: {}", on.join(", ")));
        let secret = if install.token.is_some() {
            "deletion scheduled"
        } else {
            "none"
        };
        output::line(format_args!("secret: {secret}"));
        for claim in install.claims() {
            let manager = claim.business_manager_id.as_deref().unwrap_or_default();
            output::line(format_args!("dropped: the claim of Business Manager {manager}"));
        }
        output::line(format_args!("told: {business}, that the app was removed"));
        return Ok(());
    }
    if let Some(graph) = graph {
        Configuration::open(place, clock, graph, business)
            .await?
            .uninstall()
            .await?;
        output::line("removed at Meta");
    }
    remove(&parts, business).await?;
    output::line("uninstalled; the notice leaves within a minute");
    Ok(())
}

/// As an uninstall webhook does.
async fn remove(parts: &Parts, business: &str) -> anyhow::Result<()> {
    for _ in 0..ROUNDS {
        let install = parts.business(business).await?.install;
        let now = parts.clock.now();
        let plan = decide(Some(&install), &removal(&install, now), Configured::ALL, now);
        if let Some(next) = &plan.install
            && !parts.installs.commit(next, &plan.outbox, plan.wake).await?
        {
            continue;
        }
        // Also what a removal in between has left.
        parts.business_secrets().schedule_deletion(business).await?;
        return Ok(());
    }
    bail!("{business} is written too often to keep up with; try again")
}
