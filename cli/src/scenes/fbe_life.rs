//! The whole life of a business: it installs the app, takes its pixel away, drifts at Graph, has a feature switched off
//! at Meta, is claimed by another Business Manager, and leaves. The partner's platform is notified like the business.

use jiff::SignedDuration;

use super::business::{BUSINESS, Expected, Scene, Step};
use crate::stack::LocalStack;

const INSTALLED: Expected = Expected {
    change: "installed",
    on: &["ads", "catalog", "fb_shop", "pixel"],
    off: &[],
    drift: &[],
    installed: true,
};
const WITHOUT_PIXEL: Expected = Expected {
    change: "updated",
    on: &["ads", "catalog", "fb_shop"],
    off: &[("pixel", "pixel_id")],
    ..INSTALLED
};
const DRIFTED: Expected = Expected {
    change: "updated",
    on: &["catalog", "fb_shop"],
    off: &[("ads", "ad_account_id"), ("pixel", "pixel_id")],
    drift: &["ad_account_id"],
    installed: true,
};
const SWITCHED_OFF: Expected = Expected {
    change: "updated",
    on: &["fb_shop"],
    off: &[
        ("ads", "ad_account_id"),
        ("catalog", "switched_on_at_meta"),
        ("pixel", "pixel_id"),
    ],
    ..DRIFTED
};
const AS_BEFORE: Expected = Expected {
    change: "",
    ..SWITCHED_OFF
};
const UNINSTALLED: Expected = Expected {
    change: "uninstalled",
    on: &[],
    off: &[
        ("ads", "installation"),
        ("catalog", "installation"),
        ("fb_shop", "installation"),
        ("pixel", "installation"),
    ],
    drift: &[],
    installed: false,
};

/// Plays the scene through the gateway and the functions behind it.
///
/// # Errors
///
/// When the stack does not answer, cannot be looked into, or has no fakes. What only went otherwise than it
/// should stands in the steps.
pub(crate) async fn play(stack: &LocalStack, client: &reqwest::Client) -> anyhow::Result<Vec<Step>> {
    let scene = Scene::of(stack, client)?;
    let mut steps = Vec::new();
    // Meta's times are whole seconds, and the order of two events is by their times.
    let begin = stack.clock().now() - SignedDuration::from_mins(1);
    let second = |n: i64| begin + SignedDuration::from_secs(10 * n);
    for (title, case, at, expected) in [
        (
            "a business installs the app",
            "fbe/install",
            second(0),
            &INSTALLED,
        ),
        (
            "it takes the pixel away",
            "fbe/update_removes_pixel",
            second(1),
            &WITHOUT_PIXEL,
        ),
    ] {
        let mark = scene.mark();
        let title = format!("{title}: {}", scene.post(case, at).await?);
        steps.push(scene.step(title, mark, expected).await?);
    }
    let mark = scene.mark();
    scene.drift().await?;
    let title = "Graph takes the ad account away and tells nobody; the bridge compares".to_owned();
    steps.push(scene.step(title, mark, &DRIFTED).await?);
    let mark = scene.mark();
    scene.graph.switch_off(BUSINESS, "catalog");
    scene.compare().await?;
    let title = "the catalog is switched off at Meta; the bridge compares".to_owned();
    steps.push(scene.step(title, mark, &SWITCHED_OFF).await?);
    for (title, case, at) in [
        (
            "another Business Manager installs the app under the same id, and changes nothing",
            "fbe/install_other_manager",
            second(3),
        ),
        (
            "it removes the app again",
            "fbe/uninstall_other_manager",
            second(4),
        ),
    ] {
        let mark = scene.mark();
        let title = format!("{title}: {}", scene.post(case, at).await?);
        let mut step = scene.step(title, mark, &AS_BEFORE).await?;
        scene
            .claims(&mut step, case == "fbe/install_other_manager")
            .await?;
        steps.push(step);
    }
    let mark = scene.mark();
    let title = format!(
        "it removes the app: {}",
        scene.post("fbe/uninstall", second(5)).await?
    );
    steps.push(scene.step(title, mark, &UNINSTALLED).await?);
    Ok(steps)
}
