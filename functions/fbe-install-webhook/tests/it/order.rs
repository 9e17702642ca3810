//! Any order, and any number of times.

use secrecy::ExposeSecret;
use shared::fbe::install::{Install, Status};

use super::house::{House, SHOP};

#[tokio::test]
async fn any_order_and_repetition_ends_in_the_state_of_the_newest() {
    let cases = [
        "install",
        "update_removes_pixel",
        "update_older",
        "update_changes_catalog",
        "uninstall",
        "reinstall",
    ];
    let house = House::start().await;
    for case in cases {
        house.deliver(case).await;
    }
    let expected = comparable(house.install(SHOP).await.unwrap());
    assert_eq!(expected.status, Status::Active);
    // Every order would be 720 deliveries of six; these have each case first, last and twice.
    for turn in 0..cases.len() {
        let house = House::start().await;
        let mut order = cases;
        order.rotate_left(turn);
        order.reverse();
        for case in order.iter().chain(&order[..2]) {
            assert_eq!(house.deliver(case).await, 200);
        }
        assert_eq!(
            comparable(house.install(SHOP).await.unwrap()),
            expected,
            "{order:?}"
        );
        assert_eq!(
            house.token(SHOP).await.as_deref(),
            Some("EAAB_reinstall_token"),
            "{order:?}"
        );
    }
    // And two at once. Not more: Secrets Manager keeps every version for a day, but the embedded one only the
    // current and the previous, and of three tokens written together the one that counts may be neither.
    let house = House::start().await;
    for (one, other) in [
        ("reinstall", "uninstall"),
        ("install", "update_changes_catalog"),
        ("update_older", "update_removes_pixel"),
    ] {
        let answers = tokio::join!(house.deliver(one), house.deliver(other));
        assert_eq!(answers, (200, 200));
    }
    assert_eq!(comparable(house.install(SHOP).await.unwrap()), expected);
    let install = house.install(SHOP).await.unwrap();
    let secret = house.secrets.of(&install).await.unwrap().unwrap();
    assert_eq!(secret.token().unwrap().expose_secret(), "EAAB_reinstall_token");
}

fn comparable(mut install: Install) -> Install {
    install.version = 0;
    install.history.clear();
    install.installed_at = None;
    install
}
