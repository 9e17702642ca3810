"""The same as `bare`, in Python: check the signature, and for each message one UpdateItem, or a PutItem for a person who is
not stored yet. The loop at the end is what Lambda's runtime does around a handler, and no more."""

import base64
import hashlib
import hmac
import http.client
import json
import os

import boto3

dynamodb = boto3.client("dynamodb")
secret = boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["META_SECRET_ID"])
key = json.loads(secret["SecretString"])["app_secret"].encode()
table = os.environ["CONTACTS_TABLE"]


def store(item):
    contact_key = {"S": f"python#{item['recipient']['id']}#{item['sender']['id']}"}
    at = {"N": str(item["timestamp"])}
    try:
        dynamodb.update_item(
            TableName=table,
            Key={"contact_key": contact_key},
            UpdateExpression="SET last_message_at = :at",
            ConditionExpression="attribute_exists(contact_key)",
            ExpressionAttributeValues={":at": at},
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        dynamodb.put_item(TableName=table, Item={"contact_key": contact_key, "last_message_at": at})


def handler(event):
    body = event.get("body") or ""
    body = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
    expected = "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, event["headers"].get("x-hub-signature-256", "")):
        return {"statusCode": 401}
    for entry in json.loads(body)["entry"]:
        for item in entry.get("messaging", []):
            if item.get("message"):
                store(item)
    return {"statusCode": 200, "body": "EVENT_RECEIVED"}


api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
path = "/2018-06-01/runtime/invocation"
while True:
    api.request("GET", f"{path}/next")
    following = api.getresponse()
    answer = handler(json.loads(following.read()))
    request_id = following.headers["lambda-runtime-aws-request-id"]
    api.request("POST", f"{path}/{request_id}/response", json.dumps(answer))
    api.getresponse().read()
