//! Secrets Manager in process, with a file that survives a kill.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use axum::body::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use winterbaume_core::{MockRequest, MockResponse, MockService as _, StatefulService as _};
use winterbaume_secretsmanager::SecretsManagerService;

use crate::template::REGION;

pub(super) struct SecretsManager {
    service: SecretsManagerService,
    file: Option<PathBuf>,
    // Snapshots reach the file in the order in which they were taken.
    writing: Mutex<()>,
}

impl SecretsManager {
    pub(super) async fn open(data_dir: Option<&Path>) -> anyhow::Result<Self> {
        let service = SecretsManagerService::new();
        let file = data_dir.map(|dir| dir.join("secrets.json"));
        if let Some(file) = &file {
            match fs::read(file) {
                Ok(bytes) => {
                    let view = serde_json::from_slice(&bytes)
                        .with_context(|| format!("{} is not a snapshot of secrets", file.display()))?;
                    service
                        .restore(winterbaume_core::default_account_id(), REGION, view)
                        .await
                        .with_context(|| format!("{} cannot be restored", file.display()))?;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot read {}", file.display()));
                }
            }
        }
        Ok(Self {
            service,
            file,
            writing: Mutex::new(()),
        })
    }

    pub(super) async fn answer(&self, operation: &str, headers: HeaderMap, body: Bytes) -> MockResponse {
        let reads = ["Get", "BatchGet", "List", "Describe", "Validate"];
        let Some(file) = self
            .file
            .as_deref()
            .filter(|_| !reads.iter().any(|read| operation.starts_with(read)))
        else {
            return self.handle(operation, headers, body).await;
        };
        let _writing = self.writing.lock().await;
        let response = self.handle(operation, headers, body).await;
        if response.status == 200
            && let Err(error) = self.write(file).await
        {
            tracing::error!(%error, "secrets are not kept");
            return MockResponse::json(
                500,
                r#"{"__type":"InternalServiceError","message":"the snapshot of the secrets could not be written"}"#,
            );
        }
        response
    }

    async fn handle(&self, operation: &str, headers: HeaderMap, body: Bytes) -> MockResponse {
        if operation == "UpdateSecretVersionStage"
            && let Some(version) = self.attached_elsewhere(&headers, &body).await
        {
            let message = format!(
                "The parameter RemoveFromVersionId can't be empty. The staging label is currently attached to version \
                 {version}, so you must explicitly reference that version in RemoveFromVersionId."
            );
            let refusal = json!({"__type": "InvalidParameterException", "message": message});
            return MockResponse::json(400, refusal.to_string());
        }
        let mut request = MockRequest {
            method: "POST".to_owned(),
            // The service finds its region in the host's name; here all regions are one.
            uri: format!("https://secretsmanager.{REGION}.amazonaws.com/"),
            headers,
            body,
        };
        // The embedded service gives the first version an id of its own, whatever token comes with it.
        let Some((secret, first_version)) = (operation == "CreateSecret")
            .then(|| without_value(&request.body))
            .flatten()
        else {
            return self.service.handle(request).await;
        };
        request.body = secret;
        let mut put = MockRequest {
            method: request.method.clone(),
            uri: request.uri.clone(),
            headers: request.headers.clone(),
            body: first_version,
        };
        let created = self.service.handle(request).await;
        if created.status != 200 {
            return created;
        }
        let target = http::HeaderValue::from_static("secretsmanager.PutSecretValue");
        put.headers.insert("x-amz-target", target);
        self.service.handle(put).await
    }

    /// The version that has a label already which is to be moved without saying from where. The embedded service refuses
    /// that for `AWSCURRENT` alone.
    async fn attached_elsewhere(&self, headers: &HeaderMap, body: &[u8]) -> Option<String> {
        let update: Value = serde_json::from_slice(body).ok()?;
        let text = |name: &str| update.get(name).and_then(Value::as_str);
        let (secret, label, to) = (text("SecretId")?, text("VersionStage")?, text("MoveToVersionId")?);
        if text("RemoveFromVersionId").is_some() {
            return None;
        }
        let mut headers = headers.clone();
        let target = http::HeaderValue::from_static("secretsmanager.DescribeSecret");
        headers.insert("x-amz-target", target);
        let described = self.service.handle(MockRequest {
            method: "POST".to_owned(),
            uri: format!("https://secretsmanager.{REGION}.amazonaws.com/"),
            headers,
            body: json!({"SecretId": secret}).to_string().into(),
        });
        let described: Value = serde_json::from_slice(&described.await.body).ok()?;
        let versions = described.get("VersionIdsToStages")?.as_object()?;
        let has_label = |labels: &Value| {
            let labels = labels.as_array().map(Vec::as_slice).unwrap_or_default();
            labels.iter().any(|known| known == label)
        };
        let holder = versions.iter().find(|(_, labels)| has_label(labels));
        holder
            .map(|(version, _)| version.clone())
            .filter(|holder| holder != to)
    }

    async fn write(&self, file: &Path) -> anyhow::Result<()> {
        let view = self
            .service
            .snapshot(winterbaume_core::default_account_id(), REGION)
            .await;
        replace(file, &serde_json::to_vec(&view)?)
    }
}

/// A creation that names its first version, as one without a value and the value for it.
fn without_value(body: &[u8]) -> Option<(Bytes, Bytes)> {
    let mut create: Value = serde_json::from_slice(body).ok()?;
    let fields = create.as_object_mut()?;
    let put = json!({
        "SecretId": fields.get("Name")?,
        "ClientRequestToken": fields.remove("ClientRequestToken")?,
        "SecretString": fields.remove("SecretString")?,
    });
    Some((create.to_string().into(), put.to_string().into()))
}

/// Replaces a file so that at any moment either the old or the new content is there, whole.
fn replace(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    let new = file.with_extension("json.new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut handle = options.open(&new)?;
    handle.write_all(content)?;
    handle.sync_all()?;
    fs::rename(&new, file)?;
    if let Some(dir) = file.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}
