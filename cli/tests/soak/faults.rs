//! What goes wrong: at Braze, Graph, the external system and the partner's platform, and with the process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use testkit::braze::Endpoint;
use testkit::braze::faults::{self, RateLimit};
use testkit::external_system::Behaviour;
use testkit::fault::{Answer, Fault};
use testkit::graph::{self, Edge};

use crate::world::World;

/// What was caused.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    pub(crate) faults: usize,
    /// Those of them, at Braze and Graph, that had their effect and whose answer was lost: the caller cannot know.
    pub(crate) ambiguous: usize,
    pub(crate) outages: usize,
    pub(crate) kills: usize,
}

/// Braze is given half a minute, the others less.
const LONGER_THAN_ANYBODY_WAITS: Duration = Duration::from_secs(40);

/// A fault that any HTTP service knows, and whether it leaves the caller in doubt.
fn any(rng: &mut Rng) -> (Fault, bool) {
    match rng.u8(0..20) {
        0..5 => (faults::unavailable(503), false),
        5..10 => (faults::rate_limited(RateLimit::RetryAfter(rng.u32(1..4))), false),
        10..14 => (Fault::CutBeforeProcessing, false),
        14..16 => (
            Fault::Answer(Answer::html(502, "<html>Bad gateway</html>")),
            false,
        ),
        16 => (Fault::Late(Duration::from_millis(rng.u64(100..2_000))), false),
        17 => (Fault::Silence(LONGER_THAN_ANYBODY_WAITS), false),
        18 => (Fault::ProcessedThen(Answer::html(504, "")), true),
        _ => (Fault::CutAfterProcessing, true),
    }
}

/// Causes trouble until `end`; then all is well again.
pub(crate) async fn cause(world: Arc<World>, seed: u64, end: Instant) -> Trouble {
    let mut rng = Rng::with_seed(seed ^ 0xfa17);
    let mut trouble = Trouble::default();
    let mut next_kill = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(rng.u64(100..1_200))).await;
        let (fault, is_ambiguous) = any(&mut rng);
        trouble.faults += 1;
        let target = rng.u8(0..10);
        // The system may be asked twice: only one of its answers counts. The platform knows what it has by its id.
        trouble.ambiguous += usize::from(is_ambiguous && target < 5);
        match target {
            0..3 => {
                let endpoints = [Endpoint::Track, Endpoint::Identify, Endpoint::TriggerSend];
                world.braze.script(*rng.choice(&endpoints).unwrap(), fault);
            }
            3..5 => {
                let edges = [Edge::Messages, Edge::AccessToken, Edge::Installs];
                let fault = if rng.u8(0..4) == 0 && !is_ambiguous {
                    graph::faults::rate_limited(4)
                } else {
                    fault
                };
                world.graph.script(*rng.choice(&edges).unwrap(), fault);
            }
            5..8 => world.system.script(Behaviour::Fault(fault)),
            8 => world.partner.script(fault),
            _ => {
                trouble.outages += 1;
                let length = Duration::from_secs(rng.u64(1..6));
                match rng.u8(0..3) {
                    0 => world.braze.down_for(length, faults::unavailable(503)),
                    1 => world.graph.down_for(length, graph::faults::unavailable(503)),
                    _ => world.system.down_for(length, faults::unavailable(503)),
                }
            }
        }
        if Instant::now() > next_kill {
            trouble.kills += 1;
            let world = world.clone();
            // It blocks until the process answers again.
            let again = tokio::task::spawn_blocking(move || {
                world.kill();
                world.begin();
            });
            again.await.unwrap();
            next_kill = Instant::now() + Duration::from_secs(rng.u64(20..80));
        }
    }
    world.braze.clear_script();
    world.braze.end_outage();
    world.graph.clear_script();
    world.graph.end_outage();
    world.system.clear_script();
    world.system.end_outage();
    world.partner.clear_script();
    trouble
}
