//! Lists, which Graph gives in pages.

use reqwest::Method;
use serde_json::Value;

use super::answer::unreadable;
use super::error::GraphError;
use super::{Credentials, GraphClient};
use crate::json;

impl GraphClient {
    /// All members of a list. More than `most` pages are a loop, and an answer that is not understood is an error:
    /// neither must read as the end of the list.
    pub(super) async fn list(
        &self,
        credentials: Credentials<'_>,
        path: &[&str],
        query: &[(&str, &str)],
        most: usize,
    ) -> Result<Vec<Value>, GraphError> {
        let (mut members, mut after) = (Vec::new(), String::new());
        for _ in 0..most {
            let mut request = self.authorised(Method::GET, path, credentials)?.query(query);
            if !after.is_empty() {
                request = request.query(&[("after", &after)]);
            }
            let mut value = self.request(request).await?;
            match value.get_mut("data").map(Value::take) {
                Some(Value::Array(data)) => members.extend(data),
                _ => return Err(unreadable("an answer without `data`")),
            }
            // The address of the next page holds the token; the cursor is enough.
            let paging = value.get("paging").unwrap_or(&Value::Null);
            if json::member(paging, "next").text().is_none_or(str::is_empty) {
                return Ok(members);
            }
            match paging.pointer("/cursors/after").and_then(Value::as_str) {
                Some(cursor) if cursor != after => cursor.clone_into(&mut after),
                _ => return Err(unreadable("a further page without a new cursor")),
            }
        }
        Err(unreadable("pages without end"))
    }
}
