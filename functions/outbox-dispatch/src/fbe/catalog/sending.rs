//! Hands batches over to Meta, and asks what became of them.

use shared::clients::graph::{BatchAccepted, ErrorKind, GraphError};
use shared::outbox::Reason;

use super::batch::Batch;
use super::{Run, continues, processing};
use crate::fbe::Visit;
use crate::settle::Outcome;

impl Visit<'_> {
    /// Hands over one batch, in halves if Meta asks for less. [`Outcome::Busy`]: time is up.
    pub(super) async fn send(&mut self, run: &mut Run, batch: Batch) -> Result<(), Outcome> {
        let mut open = vec![batch];
        while let Some(batch) = open.pop() {
            if self.is_late() {
                return Err(Outcome::Busy);
            }
            if batch.items().len() > run.push.progress.batch_limit.max(1) {
                let (first, second) = batch.halves();
                open.extend(second);
                open.push(first);
                continue;
            }
            let left = self.until.duration_since(self.now());
            // A batch that is cut off is sent again: upserts change nothing the second time. It is Meta that was slow
            // then, and not the feed.
            let answer = tokio::time::timeout(left.try_into().unwrap_or_default(), self.call(run, &batch))
                .await
                .map_err(|_| continues())?;
            match answer {
                Ok(answer) if answer.handles.is_empty() => {
                    self.token_was_taken().await?;
                    // Nothing was taken, whatever the status says.
                    let first = answer.errors.first();
                    let message = first.map_or("not taken", |error| error.message.as_str());
                    run.alone(batch, message, &mut open)
                        .ok_or_else(|| Outcome::dead(Reason::CatalogRefused))?;
                }
                Ok(answer) => {
                    self.token_was_taken().await?;
                    run.refusals = 0;
                    let form = run.form;
                    let BatchAccepted { handles, errors } = answer;
                    run.progress().accepted(&batch, &handles, &errors, form);
                }
                Err(error) => match error.kind {
                    ErrorKind::SentAnyway => {
                        let form = run.form;
                        run.progress().accepted(&batch, &[], &[], form);
                    }
                    ErrorKind::ReduceData => {
                        let form = run.form;
                        if run.progress().reduce(&batch, form) {
                            open.push(batch);
                        }
                    }
                    ErrorKind::Permanent { .. } if is_about_items(&error) => {
                        if run.alone(batch, &error.detail, &mut open).is_none() {
                            return Err(self.graph_failed(error).await);
                        }
                    }
                    _ => return Err(self.graph_failed(error).await),
                },
            }
            self.keep(run).await?;
            self.make_room(run).await?;
        }
        Ok(())
    }

    /// One call with a batch, together with few others.
    async fn call(&self, run: &mut Run, batch: &Batch) -> Result<BatchAccepted, GraphError> {
        // It is never closed.
        let _turn = self.worker.batches.acquire().await;
        let (graph, catalog) = (&self.worker.graph, &run.push.progress.catalog_id);
        loop {
            let sent = graph.items_batch(run.access.credentials(), catalog, batch, batch.body_bytes());
            match sent.await {
                Err(error) if self.app_changed(&mut run.access, &error).await => {}
                answer => return answer,
            }
        }
    }

    /// Before more handles are kept than the record has room for, Meta is asked for some.
    pub(super) async fn make_room(&mut self, run: &mut Run) -> Result<(), Outcome> {
        if run.push.progress.is_full() {
            self.ask(run).await?;
            if run.push.progress.is_full() {
                return Err(processing());
            }
        }
        Ok(())
    }

    /// Asks what became of the batches.
    pub(super) async fn ask(&mut self, run: &mut Run) -> Result<(), Outcome> {
        let catalog = run.push.progress.catalog_id.clone();
        for outstanding in run.push.progress.outstanding.clone() {
            if self.is_late() {
                return Err(continues());
            }
            let (graph, handle) = (&self.worker.graph, &outstanding.handle);
            let answer = loop {
                let asked = graph.check_batch_request_status(run.access.credentials(), &catalog, handle);
                match asked.await {
                    Err(error) if self.app_changed(&mut run.access, &error).await => {}
                    answer => break answer,
                }
            };
            match answer {
                Ok(status) if status.is_finished => run.progress().finished(&outstanding.handle, &status),
                Ok(_) => continue,
                // Meta forgets handles after a while; the batch was accepted all the same.
                Err(error) if matches!(error.kind, ErrorKind::Permanent { .. }) => {
                    tracing::warn!(%error, fbe.business = self.pseudonym(), "what became of a catalog batch is not known");
                    run.progress().settled(&outstanding.handle);
                }
                Err(error) => return Err(self.graph_failed(error).await),
            }
            self.keep(run).await?;
        }
        Ok(())
    }
}

/// Whether Graph refused the content of a call, and not the catalog or the app.
fn is_about_items(error: &GraphError) -> bool {
    error.status == Some(400) && matches!(error.code, None | Some(100)) && error.subcode != Some(33)
}
