use futures_util::future::join_all;

use super::house::House;

#[tokio::test]
async fn a_thousand_new_people_in_one_post_take_at_most_a_hundred_calls() {
    let house = House::start().await;
    house.receive(&[house.message("1")]).await;
    house.aws.reset_calls();
    let items: Vec<_> = (0..1000).map(|n| house.message(&format!("8{n:04}"))).collect();
    assert_eq!(house.receive(&items).await, 200);
    let calls = house.aws.dynamodb_calls();
    assert!(calls.total() <= 100, "{calls:?}");
    assert_eq!(house.pending().await, 1001);
}

// `cargo bench` does the same with ten thousand.
#[tokio::test]
async fn fifteen_hundred_syncs_leave_in_twenty_requests() {
    let house = House::start().await;
    let posts: Vec<Vec<_>> = (0..3)
        .map(|post| {
            (0..500)
                .map(|n| house.message(&format!("9{post}{n:04}")))
                .collect()
        })
        .collect();
    for answer in join_all(posts.iter().map(|items| house.receive(items))).await {
        assert_eq!(answer, 200);
    }
    house.tick().await;
    assert_eq!(house.pending().await, 0);
    assert_eq!(house.braze.profiles().len(), 1500);
    assert_eq!(house.braze.track_requests().len(), 20);
}
