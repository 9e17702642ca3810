//! What is logged.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;

/// Everything that the process logs, beside other tests too: a subscriber of one thread may miss what another thread
/// registers.
#[derive(Clone, Debug, Default)]
pub struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    /// Begins to keep what these crates log, and the warnings of all. The SDK logs request bodies at trace, which is why
    /// `telemetry` never lets libraries below warnings.
    ///
    /// # Errors
    ///
    /// If what is logged goes elsewhere already.
    pub fn begin(crates: &[&str]) -> anyhow::Result<Self> {
        let logged = Self::default();
        let crates: Vec<String> = crates.iter().map(|name| format!("{name}=trace")).collect();
        let writer = logged.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(format!("warn,{}", crates.join(","))))
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber)?;
        Ok(logged)
    }

    /// All of it since the last call.
    #[must_use]
    pub fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
