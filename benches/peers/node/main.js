// The same as `bare`, in Node: check the signature, and for each message one UpdateItem, or a PutItem for a person who is
// not stored yet. The loop at the end is what Lambda's runtime does around a handler, and no more.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { DynamoDBClient, PutItemCommand, UpdateItemCommand } from '@aws-sdk/client-dynamodb';
import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';

const { META_SECRET_ID, CONTACTS_TABLE: TableName, AWS_LAMBDA_RUNTIME_API } = process.env;
const dynamodb = new DynamoDBClient({});
const secret = await new SecretsManagerClient({}).send(new GetSecretValueCommand({ SecretId: META_SECRET_ID }));
const { app_secret: key } = JSON.parse(secret.SecretString);

function isSigned(body, signature) {
  const expected = createHmac('sha256', key).update(body).digest();
  const given = Buffer.from((signature ?? '').replace(/^sha256=/, ''), 'hex');
  return given.length === expected.length && timingSafeEqual(given, expected);
}

async function store({ sender, recipient, timestamp }) {
  const contact_key = { S: `node#${recipient.id}#${sender.id}` };
  const at = { N: String(timestamp) };
  try {
    await dynamodb.send(new UpdateItemCommand({
      TableName, Key: { contact_key }, UpdateExpression: 'SET last_message_at = :at',
      ConditionExpression: 'attribute_exists(contact_key)', ExpressionAttributeValues: { ':at': at },
    }));
  } catch (error) {
    if (error.name !== 'ConditionalCheckFailedException') throw error;
    await dynamodb.send(new PutItemCommand({ TableName, Item: { contact_key, last_message_at: at } }));
  }
}

async function handler(event) {
  const body = Buffer.from(event.body ?? '', event.isBase64Encoded ? 'base64' : 'utf8');
  if (!isSigned(body, event.headers['x-hub-signature-256'])) return { statusCode: 401 };
  for (const entry of JSON.parse(body).entry) {
    for (const item of entry.messaging ?? []) {
      if (item.message) await store(item);
    }
  }
  return { statusCode: 200, body: 'EVENT_RECEIVED' };
}

const api = `http://${AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation`;
for (;;) {
  const next = await fetch(`${api}/next`);
  const answer = await handler(await next.json());
  const id = next.headers.get('lambda-runtime-aws-request-id');
  await (await fetch(`${api}/${id}/response`, { method: 'POST', body: JSON.stringify(answer) })).arrayBuffer();
}
