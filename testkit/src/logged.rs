//! What is logged.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use tracing_subscriber::EnvFilter;

type Buffer = Mutex<Vec<u8>>;

/// The functions' crates, whose every word is kept, and the warnings of all. The SDK logs request bodies at trace, which
/// is why `telemetry` never lets libraries below warnings.
const KEPT: &str = "warn,shared=trace,messenger_verify=trace,messenger_events=trace,messenger_send=trace,\
                    fbe_install_webhook=trace,whatsapp_relay=trace,outbox_dispatch=trace,data_deletion=trace";

static LISTENERS: Mutex<Vec<Weak<Buffer>>> = Mutex::new(Vec::new());
static SUBSCRIBED: OnceLock<bool> = OnceLock::new();

/// Everything that the process logs, beside other tests too: a subscriber of one thread may miss what another thread
/// registers.
#[derive(Debug)]
pub struct Logged(Arc<Buffer>);

impl Logged {
    /// Begins to keep it. Several may.
    ///
    /// # Errors
    ///
    /// If what is logged goes elsewhere already.
    pub fn begin() -> anyhow::Result<Self> {
        let subscribed = SUBSCRIBED.get_or_init(|| {
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(EnvFilter::new(KEPT))
                .with_writer(|| Everybody)
                .finish();
            tracing::subscriber::set_global_default(subscriber).is_ok()
        });
        anyhow::ensure!(subscribed, "what is logged goes elsewhere already");
        let logged = Self(Arc::default());
        let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&logged.0));
        Ok(logged)
    }

    /// All of it since the last call.
    #[must_use]
    pub fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

struct Everybody;

impl Write for Everybody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            let mut kept = listener.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
