//! EventBridge's schedules.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use shared::clock::Clock;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Handler, invoke};

/// Invocations of a schedule at once.
const AT_ONCE: usize = 2;

/// A function that is invoked again and again.
#[derive(Clone)]
pub struct ScheduledInvocation {
    /// For the log, and the rule's name in the event.
    pub name: String,
    /// How often. The first time is one period after the start.
    pub every: Duration,
    /// The event, instead of the one that EventBridge makes.
    pub input: Option<Value>,
    /// The function.
    pub handler: Handler,
    /// The function's time limit.
    pub timeout: Option<Duration>,
}

/// The schedules, running.
pub struct ScheduleDriver {
    tasks: JoinSet<()>,
}

impl ScheduleDriver {
    /// Runs `schedules` until `stop` is cancelled; `clock` dates their events. As with AWS, a schedule does not wait for
    /// its last invocation; but while two run, as many as fit into two minutes, its ticks are left out.
    #[must_use]
    pub fn start(schedules: Vec<ScheduledInvocation>, clock: &Clock, stop: &CancellationToken) -> Self {
        let mut tasks = JoinSet::new();
        for schedule in schedules {
            tasks.spawn(run(schedule, clock.clone(), stop.clone()));
        }
        Self { tasks }
    }

    /// Waits until every invocation in hand is over.
    pub async fn stopped(self) {
        self.tasks.join_all().await;
    }
}

async fn run(schedule: ScheduledInvocation, clock: Clock, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(schedule.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut running = JoinSet::new();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        while let Some(ended) = running.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        if running.len() < AT_ONCE {
            let event = schedule
                .input
                .clone()
                .unwrap_or_else(|| schedule_event(&schedule.name, clock.now()));
            let schedule = schedule.clone();
            running.spawn(async move {
                if let Err(error) = invoke(&schedule.handler, event, schedule.timeout).await {
                    tracing::error!(schedule = %schedule.name, %error, "a scheduled function failed");
                }
            });
        }
    }
    running.join_all().await;
}

/// The event that EventBridge makes of a rule's schedule.
#[must_use]
pub fn schedule_event(rule: &str, now: Timestamp) -> Value {
    json!({
        "version": "0",
        "id": uuid::Uuid::new_v4().to_string(),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
        "time": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "region": crate::template::REGION,
        "resources": [format!("arn:aws:events:{}:123456789012:rule/{rule}", crate::template::REGION)],
        "detail": {},
    })
}
