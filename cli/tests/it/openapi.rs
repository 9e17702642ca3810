//! `docs/openapi.yaml` against the template's routes and what the functions really answer.
#![expect(clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::collections::BTreeSet;

use jsonschema::Validator;
use serde_json::{Value, json};
use testkit::template::{Template, yaml};

use crate::house::{House, payload};

const INSTALLED: &str = "shop-42-unique-id";

fn document() -> Value {
    yaml::parse(include_str!("../../../docs/openapi.yaml")).unwrap()
}

/// Validates what the pointer leads to in the document.
fn validator(document: &Value, pointer: &str) -> Validator {
    // Draft 2020-12 is OpenAPI 3.1's own; the components are found as the document's.
    let schema = json!({"$ref": format!("#{pointer}"), "components": document["components"], "paths": document["paths"]});
    jsonschema::draft202012::new(&schema).unwrap()
}

fn escaped(path: &str) -> String {
    path.replace('~', "~0").replace('/', "~1")
}

#[test]
fn it_describes_the_routes_of_the_template_and_no_others() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods
                .map(|method| (method.to_uppercase(), path.clone()))
                .collect::<Vec<_>>()
        })
        .collect();
    let template = Template::of_the_repository().unwrap();
    let routes: BTreeSet<(String, String)> = template
        .functions()
        .iter()
        .flat_map(|function| &function.routes)
        .map(|route| (route.method.clone(), route.path.clone()))
        .collect();
    assert_eq!(described, routes);
    // Every reference leads somewhere.
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        drop(validator(&document, &format!("/components/schemas/{name}")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_functions_answer_is_what_it_says() {
    let document = document();
    let house = House::live(&[]).await;
    for case in ["fbe/install", "fbe/install_other_manager"] {
        house.deliver(&payload(case)).await;
    }
    house.drain().await;
    let client = shared::clients::http::client(std::time::Duration::from_secs(20));
    let url = house.stack.url();
    let bearer = |token: &str| format!("Bearer {token}");
    let (reader, braze) = (
        bearer("development-partner-api-token"),
        bearer("development-inbound-token"),
    );
    let external = bearer("development-external-system-token");
    let inbound = r#"{"message":"hello","user_id":"42","dispatch_id":"d1"}"#;
    let one = "/fbe/installs/{business}";
    let handshake = "?hub.mode=subscribe&hub.challenge=1&hub.verify_token=";
    let right = format!("{handshake}development-verify-token");
    let found = "?pixel_id=1964583793745557";
    let cases: Vec<(&str, &str, String, Option<&String>, &str, u16)> = vec![
        (
            "get",
            one,
            format!("/fbe/installs/{INSTALLED}"),
            Some(&reader),
            "",
            200,
        ),
        (
            "get",
            one,
            "/fbe/installs/nobody".to_owned(),
            Some(&reader),
            "",
            404,
        ),
        (
            "get",
            one,
            format!("/fbe/installs/{INSTALLED}"),
            Some(&braze),
            "",
            401,
        ),
        (
            "get",
            "/fbe/installs",
            format!("/fbe/installs{found}"),
            Some(&reader),
            "",
            200,
        ),
        (
            "get",
            "/fbe/installs",
            "/fbe/installs?pixel_id=7".to_owned(),
            Some(&reader),
            "",
            200,
        ),
        (
            "get",
            "/fbe/installs",
            "/fbe/installs".to_owned(),
            Some(&reader),
            "",
            400,
        ),
        ("get", "/fbe/installs", "/fbe/installs".to_owned(), None, "", 401),
        (
            "get",
            "/fbe/webhook",
            format!("/fbe/webhook{right}"),
            None,
            "",
            200,
        ),
        (
            "get",
            "/fbe/webhook",
            format!("/fbe/webhook{handshake}wrong"),
            None,
            "",
            403,
        ),
        (
            "get",
            "/messenger/webhook",
            format!("/messenger/webhook{right}"),
            None,
            "",
            200,
        ),
        (
            "get",
            "/messenger/webhook",
            format!("/messenger/webhook{handshake}wrong"),
            None,
            "",
            403,
        ),
        ("post", "/fbe/webhook", "/fbe/webhook".to_owned(), None, "{}", 401),
        (
            "post",
            "/messenger/webhook",
            "/messenger/webhook".to_owned(),
            None,
            "{}",
            401,
        ),
        (
            "post",
            "/whatsapp/inbound",
            "/whatsapp/inbound".to_owned(),
            Some(&braze),
            inbound,
            202,
        ),
        (
            "post",
            "/whatsapp/inbound",
            "/whatsapp/inbound".to_owned(),
            Some(&reader),
            inbound,
            401,
        ),
        (
            "post",
            "/whatsapp/reply",
            "/whatsapp/reply".to_owned(),
            Some(&external),
            "{}",
            400,
        ),
        (
            "post",
            "/whatsapp/reply",
            "/whatsapp/reply".to_owned(),
            Some(&braze),
            "{}",
            401,
        ),
    ];
    for (method, route, path, authorization, body, expected) in cases {
        let method_name = method.to_uppercase();
        let mut request = client.request(method_name.parse().unwrap(), format!("{url}{path}"));
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        if !body.is_empty() {
            request = request
                .header("content-type", "application/json")
                .body(body.to_owned());
        }
        let answer = request.send().await.unwrap();
        let what = format!("{method} {path}");
        assert_eq!(answer.status().as_u16(), expected, "{what}");
        let kind = answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        let text = answer.text().await.unwrap();
        let mut pointer = format!("/paths/{}/{method}/responses/{expected}", escaped(route));
        let described = document
            .pointer(&pointer)
            .unwrap_or_else(|| panic!("{what}: {expected} is not described"));
        if let Some(reference) = described["$ref"].as_str() {
            pointer = reference.trim_start_matches('#').to_owned();
        }
        let pointer = format!("{pointer}/content/{}/schema", escaped(&kind));
        assert!(
            document.pointer(&pointer).is_some(),
            "{what}: {kind} is not described"
        );
        let value = if kind == "application/json" {
            serde_json::from_str(&text).unwrap()
        } else {
            json!(text)
        };
        let problems: Vec<String> = validator(&document, &pointer)
            .iter_errors(&value)
            .map(|error| error.to_string())
            .collect();
        assert!(problems.is_empty(), "{what}: {problems:?} in {value}");
    }
    let notices = house.stack.fakes().partner.as_ref().unwrap().notices();
    assert_eq!(notices.len(), 1, "the claim is told to no one");
    let notice = validator(&document, "/components/schemas/Notice");
    assert!(notice.is_valid(&notices[0].body), "{}", notices[0].body);
}
