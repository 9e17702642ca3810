//! `bridge fbe list` and `bridge fbe show`

use serde_json::{Value, json};
use shared::fbe::event::integration_record_id;
use shared::fbe::install::{Install, Status, pixel_rivals};
use shared::fbe::manager::ManagerGrant;
use shared::fbe::table::Stored;

use super::Parts;
use crate::output;

pub(super) async fn list(parts: &Parts, all: bool, json: bool) -> anyhow::Result<()> {
    let (mut from, mut shown) = (None, 0);
    loop {
        let page = parts.installs.scan(false, from).await?;
        for install in page.installs {
            // Records of removals that came first, and of integrations, are no businesses of ours.
            if install.is_trace() || (!all && !install.is_installed()) {
                continue;
            }
            if shown == 0 && !json {
                output::line(format_args!(
                    "{:<32}  {:<13}  {:<20}  {:>5}  ON (OFF: MISSING)",
                    "BUSINESS", "STATUS", "INSTALLED", "DRIFT"
                ));
            }
            shown += 1;
            if json {
                output::line(summary(&install));
            } else {
                output::line(row(&install));
            }
        }
        match page.next {
            Some(cursor) => from = Some(cursor),
            None => break,
        }
    }
    if shown == 0 {
        output::note("no business has installed the app");
    }
    Ok(())
}

fn row(install: &Install) -> String {
    let gating = install.gating();
    let mut features = gating.enabled.join(", ");
    for one in &gating.disabled {
        features.push_str(if features.is_empty() { "" } else { " " });
        features.push_str(&["(", &one.feature, ": ", &one.missing, ")"].concat());
    }
    for claim in install.claims() {
        let manager = claim.business_manager_id.as_deref().unwrap_or_default();
        features.push_str(
            &[
                " [claimed by ",
                manager,
                " since ",
                &format!("{:.0}", claim.since()),
                "]",
            ]
            .concat(),
        );
    }
    if let Some(since) = install.unknown_at_graph_since {
        features.push_str(&[" [unknown at Graph since ", &format!("{since:.0}"), "]"].concat());
    }
    format!(
        "{:<32}  {:<13}  {:<20}  {:>5}  {features}",
        install.business_id,
        status(install),
        install
            .installed_at
            .map(|at| format!("{at:.0}"))
            .unwrap_or_default(),
        install.drift_count,
    )
}

/// `claimed` stands before `active`: there is something to decide.
fn status(install: &Install) -> String {
    if install.status == Status::Active && install.is_claimed() {
        return "claimed".to_owned();
    }
    let status = serde_json::to_value(install.status).unwrap_or_default();
    status.as_str().unwrap_or_default().to_owned()
}

fn summary(install: &Install) -> Value {
    let gating = install.gating();
    json!({
        "business": install.business_id,
        "status": status(install),
        "owner": install.owner(),
        "claims": install.claims().iter().map(claim).collect::<Vec<_>>(),
        "installed_at": install.installed_at,
        "reconciled_at": install.reconciled_at,
        "unknown_at_graph_since": install.unknown_at_graph_since,
        "drift_count": install.drift_count,
        "enabled": gating.enabled,
        "disabled": gating.disabled,
        "unknown": gating.unknown,
    })
}

fn claim(claim: &ManagerGrant) -> Value {
    json!({
        "business_manager_id": claim.business_manager_id,
        "since": claim.since(),
        "granted_at": claim.newest.at,
        "has_token": claim.token.is_some(),
    })
}

pub(super) async fn show(parts: &Parts, business: &str) -> anyhow::Result<()> {
    let Stored { install, push, .. } = parts.business(business).await?;
    let mut whole = summary(&install);
    let rivals = match &install.assets.pixel_id {
        Some(pixel) => {
            let found = parts.installs.by_pixel(pixel).await?;
            let rivals = pixel_rivals(business, pixel, &found);
            rivals.into_iter().map(str::to_owned).collect()
        }
        None => Vec::new(),
    };
    let integrations = match &install.assets.business_manager_id {
        Some(manager) => {
            let record = parts.installs.read(&integration_record_id(manager)).await?;
            record.map(|record| record.install.integrations)
        }
        None => None,
    };
    if let Some(fields) = whole.as_object_mut() {
        fields.insert("install".to_owned(), json!(install));
        fields.insert("push".to_owned(), json!(push));
        fields.insert("same_pixel".to_owned(), json!(rivals));
        fields.insert("business_integrations".to_owned(), json!(integrations));
    }
    output::line(serde_json::to_string_pretty(&whole)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_names_what_is_missing() {
        let mut install = Install::unknown("shop-42");
        install.status = shared::fbe::install::Status::Active;
        install.features = vec![shared::fbe::features::Feature {
            feature_type: "pixel".to_owned(),
            ..Default::default()
        }];
        let row = row(&install);
        assert!(
            row.contains("shop-42") && row.ends_with("(pixel: pixel_id)"),
            "{row}"
        );
        install.unknown_at_graph_since = Some("2026-11-21T10:00:00Z".parse().unwrap());
        let row = super::row(&install);
        assert!(
            row.ends_with("[unknown at Graph since 2026-11-21T10:00:00Z]"),
            "{row}"
        );
    }
}
