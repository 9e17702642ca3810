//! SQS in process. Its messages are kept in memory: a wake-up holds no state.

use axum::body::Bytes;
use http::HeaderMap;
use winterbaume_core::{MockRequest, MockResponse, MockService as _};
use winterbaume_sqs::SqsService;

use super::REGION;

pub(super) struct Queues {
    service: SqsService,
}

impl Queues {
    pub(super) fn new() -> Self {
        Self {
            service: SqsService::new(),
        }
    }

    pub(super) async fn answer(&self, headers: HeaderMap, body: Bytes) -> MockResponse {
        let request = MockRequest {
            method: "POST".to_owned(),
            // The service finds its region in the host's name; here all regions are one.
            uri: format!("https://sqs.{REGION}.amazonaws.com/"),
            headers,
            body,
        };
        self.service.handle(request).await
    }
}
