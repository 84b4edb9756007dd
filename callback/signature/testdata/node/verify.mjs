// Reads signed cases from stdin, one JSON object a line, and lets independent
// libraries verify each. Prints one JSON object a line: true where accepted.
import { createInterface } from "node:readline";
import { Webhook as StandardWebhook } from "standardwebhooks";
import { Webhook as SvixWebhook } from "svix";

function accepts(Webhook, { secret, headers, body }) {
  try {
    new Webhook(secret).verify(Buffer.from(body, "base64").toString("utf8"), headers);
    return true;
  } catch {
    return false;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const signed = JSON.parse(line);
  console.log(
    JSON.stringify({
      name: signed.name,
      standardwebhooks: accepts(StandardWebhook, signed),
      svix: accepts(SvixWebhook, signed),
    }),
  );
}
