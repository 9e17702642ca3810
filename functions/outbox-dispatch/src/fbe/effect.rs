//! What an outbox item asks for in the FBE job.

use shared::fbe::plan::{CatalogPush, ExchangeToken, Notice};

/// What is to be done for a business.
pub(crate) enum FbeEffect {
    ExchangeToken(ExchangeToken),
    Reconcile,
    ReconcileManager,
    Notify(Notice),
    PushCatalog(CatalogPush),
}
