//! Tells open pages when there is something new.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};

use super::state::Console;

/// A page is drawn anew no more often than this, however much happens.
const PAUSE: Duration = Duration::from_millis(400);
/// A deployed stack tells nothing by itself: its tables are read again this often, while somebody looks.
const DEPLOYED: Duration = Duration::from_secs(10);

/// An event `changed` whenever something is new.
pub(crate) async fn events(
    State(console): State<Arc<Console>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = console.local.as_ref().map(|local| {
        let mut changes = local.flows.changes();
        // The page was drawn a moment ago; what happened since, nobody has told it.
        changes.mark_changed();
        changes
    });
    let stop = console.stop.clone();
    let events = stream::unfold(changes, move |mut changes| {
        let stop = stop.clone();
        async move {
            let news = async {
                match &mut changes {
                    None => {
                        tokio::time::sleep(DEPLOYED).await;
                        true
                    }
                    Some(changes) => {
                        tokio::time::sleep(PAUSE).await;
                        changes.changed().await.is_ok()
                    }
                }
            };
            let goes_on = tokio::select! {
                goes_on = news => goes_on,
                // Else the stack could not stop while a page is open.
                () = stop.cancelled() => false,
            };
            goes_on.then(|| (Ok(Event::default().event("changed").data("1")), changes))
        }
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}
