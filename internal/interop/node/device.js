// A device made of Microsoft's SDK that does what it is told: one JSON object a line on standard input,
// {"id":1,"do":"send",…}, answered on standard output by {"id":1,…} or {"id":1,"error":…}. What comes by itself is a line
// {"event":…}.
'use strict';
const fs = require('fs');
const readline = require('readline');
const { Readable } = require('stream');
const { Client, ModuleClient, Message } = require('azure-iot-device');
const { NoRetry } = require('azure-iot-common');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');
const { Http } = require('azure-iot-device-http');
const protocols = { mqtt: Mqtt, mqttws: MqttWs, http: Http };

let client, twin;
let verdict = 'complete'; // or reject, abandon
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');

const commands = {
  async connect({ connectionString, protocol, ca, cert, key }) {
    const kind = /;ModuleId=/.test(connectionString) ? ModuleClient : Client;
    client = kind.fromConnectionString(connectionString, protocols[protocol]);
    const files = Object.entries({ ca, cert, key }).filter(([, file]) => file);
    if (files.length > 0) { // at once: a second call makes the SDK forget the first
      await client.setOptions(Object.fromEntries(files.map(([name, file]) => [name, fs.readFileSync(file, 'utf8')])));
    }
    client.on('error', (err) => say({ event: 'error', error: String(err) }));
    client.on('connect', () => say({ event: 'connect' }));
    client.on('disconnect', (err) => say({ event: 'disconnect', error: String(err) }));
    client.on('message', (m) => {
      const properties = {};
      for (let i = 0; i < m.properties.count(); i++) {
        const p = m.properties.getItem(i);
        properties[p.key] = p.value;
      }
      client[verdict](m, (err) => say({
        event: 'message', body: m.getData().toString(), messageId: m.messageId, correlationId: m.correlationId,
        contentType: m.contentType, properties, error: err ? String(err) : undefined,
      }));
    });
    if (protocol === 'http') await client.setOptions({ http: { receivePolicy: { interval: 1 } } });
    await client.open();
  },
  async send({ body, messageId, properties }) {
    const m = new Message(body);
    m.messageId = messageId;
    m.contentType = 'application/json';
    m.contentEncoding = 'utf-8';
    for (const [key, value] of Object.entries(properties || {})) m.properties.add(key, value);
    await client.sendEvent(m);
  },
  async sendMessage({ body, system, properties }) {
    const m = new Message(body);
    Object.assign(m, system);
    for (const [key, value] of Object.entries(properties)) m.properties.add(key, value);
    await client.sendEvent(m);
  },
  async sendBatch({ bodies }) {
    await Promise.all(bodies.map((b) => client.sendEvent(new Message(b))));
  },
  async noRetry() {
    client.setRetryPolicy(new NoRetry());
  },
  async output({ name, body }) {
    await client.sendOutputEvent(name, new Message(body));
  },
  async inputs() {
    client.on('inputMessage', (name, m) => client[verdict](m, (err) => say({
      event: 'input', name, body: m.getData().toString(), error: err ? String(err) : undefined,
    })));
  },
  async settle({ by }) {
    verdict = by;
  },
  async batch({ bodies }) {
    await client.sendEventBatch(bodies.map((b) => new Message(b)));
  },
  async method({ name, status }) {
    const on = (client.onDeviceMethod || client.onMethod).bind(client);
    on(name, (request, response) => {
      response.send(status, { name: request.methodName, echo: request.payload }, (err) => {
        if (err) say({ event: 'error', error: String(err) });
      });
    });
  },
  async twin() {
    if (!twin) {
      twin = await client.getTwin();
      twin.on('properties.desired', (delta) => say({ event: 'desired', delta }));
    } else {
      await new Promise((resolve, reject) => twin.get((err) => (err ? reject(err) : resolve())));
    }
    return { desired: twin.properties.desired, reported: twin.properties.reported };
  },
  report({ patch }) {
    return new Promise((resolve, reject) => twin.properties.reported.update(patch, (err) => (err ? reject(err) : resolve())));
  },
  async upload({ name, body }) {
    const content = Buffer.from(body);
    await client.uploadToBlob(name, Readable.from([content]), content.length);
  },
  async close() {
    await client.close();
  },
};

const input = readline.createInterface({ input: process.stdin });
input.on('line', async (line) => {
  const command = JSON.parse(line);
  try {
    const result = await commands[command.do](command);
    say({ id: command.id, result: result === undefined ? null : result });
  } catch (err) {
    say({ id: command.id, error: `${err.constructor.name}: ${err.message}` });
  }
});
input.on('close', () => process.exit(0));
