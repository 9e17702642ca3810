//! `GET /fbe/installs/{business}` and `GET /fbe/installs?pixel_id=`: what the partner's platform may read.

use http::StatusCode;
use lambda_http::{Request, RequestExt};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use shared::fbe::view::InstallView;
use shared::store::StoreError;
use shared::webhook::access::{admit, by_bearer};
use shared::webhook::{Answer, ErrorCode, answer};

use crate::App;

/// The path of the routes.
const PATH: &str = "/fbe/installs";

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// One business.
    Business(String),
    /// Those that hold the pixel that the query names.
    Pixel,
}

/// The installs that hold a pixel.
#[derive(Serialize)]
struct Found {
    installs: Vec<InstallView>,
}

/// What a request asks for, if it is for these routes.
pub(crate) fn asked(request: &Request) -> Option<Asked> {
    // A stage may lead the path.
    let (_, rest) = request.uri().path().split_once(PATH)?;
    if let Some(business) = request
        .path_parameters_ref()
        .and_then(|path| path.first("business"))
    {
        return Some(Asked::Business(business.to_owned()));
    }
    let business = rest.trim_matches('/');
    let business = percent_decode_str(business).decode_utf8_lossy();
    Some(if business.is_empty() {
        Asked::Pixel
    } else {
        Asked::Business(business.into_owned())
    })
}

impl App {
    /// 200 with the install, or with the installs of a pixel; 400, 401, 404 or 503.
    pub(crate) async fn installs(&self, request: &Request, asked: &Asked) -> Answer {
        let judge =
            |secret: &shared::secrets::PartnerSecret| by_bearer(request.headers(), secret.api_tokens());
        if let Err(refusal) = admit(&self.partner, judge).await {
            return refusal;
        }
        let found = match asked {
            Asked::Business(business) => self.business(business).await,
            Asked::Pixel => match request
                .query_string_parameters_ref()
                .and_then(|query| query.first("pixel_id"))
            {
                Some(pixel) if !pixel.trim().is_empty() => self.pixel(pixel.trim()).await,
                _ => return answer::field_invalid("pixel_id", "is the id of a pixel, in the query"),
            },
        };
        found.unwrap_or_else(|error| {
            tracing::error!(%error, "an install cannot be read");
            ErrorCode::StoreUnavailable.answer()
        })
    }

    async fn business(&self, business: &str) -> Result<Answer, StoreError> {
        let stored = self.ingest.installs.read(business).await?;
        // A record of a removal that came first, or of integration events, is no install.
        let install = stored
            .map(|stored| stored.install)
            .filter(|install| !install.is_trace());
        Ok(install.map_or_else(
            || ErrorCode::InstallUnknown.answer(),
            |install| answer::json(StatusCode::OK, &InstallView::of(&install)),
        ))
    }

    /// A pixel should be one business's. Where it is not, the one that was granted it last comes first.
    async fn pixel(&self, pixel: &str) -> Result<Answer, StoreError> {
        let mut installs = self.ingest.installs.by_pixel(pixel).await?;
        installs.retain(|install| install.assets.pixel_id.as_deref() == Some(pixel));
        installs.sort_by(|a, b| b.granted.cmp(&a.granted));
        let installs = installs.iter().map(InstallView::of).collect();
        Ok(answer::json(StatusCode::OK, &Found { installs }))
    }
}
