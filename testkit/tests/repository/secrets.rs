use serde_json::{Value, json};

use crate::template;

/// What a secret's value is first made of, and its name.
fn origin(properties: &Value) -> Value {
    json!({
        "Name": properties["Name"],
        "SecretString": properties["SecretString"],
        "GenerateSecretString": properties["GenerateSecretString"],
    })
}

const LETTERS_AND_DIGITS_ONLY: &str = r##"!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~"##;

fn generated(template: &Value, key: &str, length: u64) -> Value {
    json!({
        "SecretStringTemplate": template,
        "GenerateStringKey": key,
        "PasswordLength": length,
        "ExcludeCharacters": LETTERS_AND_DIGITS_ONLY,
    })
}

/// CloudFormation writes a secret's value again, over what operators have filled in since, when one of these
/// properties is not what it was at the last deployment; another name replaces the secret. So they never change. A
/// field that is added later is optional and stands in the documents only; generated ones get a secret of their own.
#[test]
fn a_deployment_never_writes_over_what_was_filled_in() {
    let pinned = [
        (
            "MetaSecret",
            "meta",
            json!(r#"{"app_id":"","app_secret":"","verify_token":""}"#),
            Value::Null,
        ),
        ("BrazeSecret", "braze", json!(r#"{"api_key":""}"#), Value::Null),
        (
            "RelaySecret",
            "relay",
            Value::Null,
            generated(
                &json!({ "Fn::Sub": r#"{"signing_secret":"whsec_{{resolve:secretsmanager:${RelaySigningSecret}:SecretString:key}}"}"# }),
                "inbound_token",
                48,
            ),
        ),
        (
            "RelaySigningSecret",
            "relay-signing-seed",
            Value::Null,
            generated(&json!("{}"), "key", 32),
        ),
        (
            "PartnerSecret",
            "partner",
            Value::Null,
            generated(
                &json!({ "Fn::Sub": r#"{"signing_secret":"whsec_{{resolve:secretsmanager:${PartnerSigningSecret}:SecretString:key}}"}"# }),
                "api_token",
                48,
            ),
        ),
        (
            "PartnerSigningSecret",
            "partner-signing-seed",
            Value::Null,
            generated(&json!("{}"), "key", 32),
        ),
        (
            "LinkSecret",
            "link",
            Value::Null,
            generated(&json!("{}"), "signing_key", 64),
        ),
    ];
    let template = template();
    let resources = &template.source()["Resources"];
    for (id, name, value, generate) in &pinned {
        let expected = json!({
            "Name": { "Fn::Sub": format!("${{AWS::StackName}}/{name}") },
            "SecretString": value,
            "GenerateSecretString": generate,
        });
        assert_eq!(origin(&resources[id]["Properties"]), expected, "{id}");
    }
    let secrets: Vec<&String> = template.secrets().keys().collect();
    let mut known: Vec<&str> = pinned.iter().map(|(id, ..)| *id).collect();
    known.sort_unstable();
    assert_eq!(secrets, known, "a secret without its first value here");
}
