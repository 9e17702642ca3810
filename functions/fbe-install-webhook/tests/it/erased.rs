//! Businesses that were erased.

use std::sync::Arc;

use shared::fbe::install::Status;

use super::house::{House, SHOP};

#[tokio::test]
async fn what_is_older_than_the_erasure_of_a_business_makes_no_new_install() {
    let house = House::start().await;
    assert_eq!(house.deliver("install").await, 200);
    let at = house.install(SHOP).await.unwrap().granted.unwrap().at;
    house.installs.bury(&[SHOP.to_owned()], at).await.unwrap();
    house.installs.erase(SHOP).await.unwrap();
    house.secrets.schedule_deletion(SHOP).await.unwrap();
    let effects = house.rows(1).await.len();
    assert_eq!(house.deliver("install").await, 200);
    assert_eq!(house.install(SHOP).await, None);
    assert_eq!(house.token(SHOP).await, None);
    assert_eq!(house.rows(1).await.len(), effects);
    let rows = house.rows(0).await;
    assert!(rows.len() == 1 && !rows[0].contains(SHOP), "{rows:?}");
    let listed = house.installs.scan(false, None).await.unwrap();
    assert!(listed.installs.is_empty());

    assert_eq!(house.deliver("reinstall").await, 200);
    assert_eq!(house.install(SHOP).await.unwrap().status, Status::Active);
    assert_eq!(house.token(SHOP).await.as_deref(), Some("EAAB_reinstall_token"));
}

#[tokio::test]
async fn a_business_that_is_erased_while_its_install_is_taken_in_stays_erased() {
    for known in [false, true] {
        let house = Arc::new(House::start().await);
        if known {
            assert_eq!(house.deliver("install").await, 200);
        }
        let (eraser, at) = (Arc::clone(&house), house.clock.now());
        house.aws.before_next("TransactWriteItems", move |_| {
            Box::pin(async move {
                eraser.installs.bury(&[SHOP.to_owned()], at).await.unwrap();
                eraser.installs.erase(SHOP).await.unwrap();
                eraser.secrets.schedule_deletion(SHOP).await.unwrap();
            })
        });
        let case = if known { "update_removes_pixel" } else { "install" };
        assert_eq!(house.deliver(case).await, 200);
        assert_eq!(house.install(SHOP).await, None, "known: {known}");
        assert_eq!(house.token(SHOP).await, None, "known: {known}");
    }
}
