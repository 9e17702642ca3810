//! `bridge fbe accept`: another Business Manager's claim takes effect.

use anyhow::bail;
use shared::fbe::plan::owner_changed;
use shared::fbe::settings::Configured;

use super::{Parts, ROUNDS};
use crate::output;

/// Ends the owner's install here, as its removal would, so that the claim takes effect.
pub(super) async fn accept(parts: &Parts, business: &str, manager: Option<&str>) -> anyhow::Result<()> {
    for _ in 0..ROUNDS {
        let before = parts.installed(business).await?;
        let claims = before
            .claims()
            .iter()
            .filter_map(|claim| claim.business_manager_id.clone());
        let claims: Vec<String> = claims.collect();
        let wanted = manager.map(str::to_owned).or_else(|| claims.first().cloned());
        let Some(wanted) = wanted.filter(|wanted| claims.contains(wanted)) else {
            if claims.is_empty() {
                bail!("no other Business Manager claims {business}");
            }
            bail!("{business} is claimed by {}", claims.join(", "));
        };
        let now = parts.clock.now();
        let mut next = before.clone();
        next.accept(&wanted, now);
        let key = format!(
            "{:014}-v{:08}-accept",
            now.as_millisecond().max(0),
            before.version
        );
        let plan = owner_changed(&before, next, key, Configured::ALL, now);
        if let Some(next) = &plan.install
            && parts.installs.commit(next, &plan.outbox, plan.wake).await?
        {
            output::line(format_args!(
                "{business} belongs to Business Manager {wanted} now"
            ));
            output::note("what follows leaves within a minute; `bridge fbe show` tells what came of it");
            return Ok(());
        }
    }
    bail!("{business} is written too often to keep up with; try again")
}
