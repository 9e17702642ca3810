//! The soak: `bridge local` as a process under a random mix of all jobs, while Braze, Graph and the external system fail
//! at random and the process is killed again and again; afterwards everything is counted. `scripts/soak` runs it.
//!
//! * [`world`]: the fakes, which outlive the process and are the truth about what left it, and the process.
//! * [`traffic`]: what people, businesses and campaigns do. To add a job, add an actor there and a row in [`audit`].
//! * [`faults`]: what goes wrong meanwhile.
//! * [`audit`]: what must hold afterwards.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "it fails by panicking, and reports to people"
)]

mod audit;
mod faults;
mod traffic;
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use self::traffic::Traffic;
use self::world::World;

/// A setting of the run.
#[expect(
    clippy::disallowed_methods,
    reason = "these are the script's, and not the product's"
)]
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| {
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number, and not {value}"))
    })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes as long as it is told to: scripts/soak"]
async fn nothing_is_lost_doubled_mislinked_or_out_of_order() {
    let minutes = number("SOAK_MINUTES", 2);
    let seed = number("SOAK_SEED", 1);
    let world = Arc::new(World::start().await);
    let traffic = Arc::new(Traffic::new(world.clone(), seed));
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let actors = traffic.actors(end).into_iter().map(tokio::spawn);
    let trouble = tokio::spawn(faults::cause(world.clone(), seed, end));
    for actor in join_all(actors).await {
        actor.unwrap();
    }
    let trouble = trouble.await.unwrap();
    traffic.deliveries_are_done().await;
    let report = audit::audit(&world, &traffic, &trouble).await;
    println!("seed {seed}, {minutes} minutes\n{report}");
    assert!(report.is_good(), "see above, and {}", world.directory().display());
    std::fs::remove_dir_all(world.directory()).unwrap();
}
