// A service made of Microsoft's SDK: registry, twins, methods and queries over REST, each asserted. The connection string
// is in CONNECTION_STRING; the device "node" is connected and answers the method "read" with 207.
'use strict';
const assert = require('assert');
const { Registry, Client } = require('azure-iothub');

async function main() {
  const registry = Registry.fromConnectionString(process.env.CONNECTION_STRING);
  const made = (await registry.create({ deviceId: 'made' })).responseBody;
  assert.strictEqual(made.deviceId, 'made');
  assert.ok(made.authentication.symmetricKey.primaryKey, 'keys are generated');
  await assert.rejects(registry.create({ deviceId: 'made' }), (err) => err.name === 'DeviceAlreadyExistsError');
  await assert.rejects(registry.get('none'), (err) => err.name === 'DeviceNotFoundError');
  assert.strictEqual((await registry.update({ deviceId: 'made', status: 'disabled' })).responseBody.status, 'disabled');
  assert.deepStrictEqual((await registry.list()).responseBody.map((d) => d.deviceId), ['made', 'node']);
  assert.strictEqual((await registry.addModule({ deviceId: 'made', moduleId: 'm' })).responseBody.moduleId, 'm');
  assert.strictEqual((await registry.getModulesOnDevice('made')).responseBody.length, 1);
  const bulk = (await registry.addDevices([{ deviceId: 'b1' }, { deviceId: 'b2' }])).responseBody;
  assert.ok(bulk.isSuccessful, JSON.stringify(bulk));
  assert.strictEqual((await registry.getRegistryStatistics()).responseBody.totalDeviceCount, 4);
  await registry.removeDevices([{ deviceId: 'b1' }, { deviceId: 'b2' }], true);

  const twin = (await registry.getTwin('node')).responseBody;
  const patched = (await registry.updateTwin('node', { tags: { site: 'north' }, properties: { desired: { interval: 7 } } }, twin.etag)).responseBody;
  assert.strictEqual(patched.tags.site, 'north');
  assert.strictEqual(patched.properties.desired.interval, 7);
  await assert.rejects(registry.updateTwin('node', { tags: { site: 'south' } }, twin.etag), (err) => err.name === 'InvalidEtagError');
  const query = registry.createQuery("SELECT * FROM devices WHERE tags.site = 'north'", 1);
  const page = (await query.nextAsTwin()).result;
  assert.deepStrictEqual(page.map((t) => t.deviceId), ['node']);
  assert.strictEqual(query.hasMoreResults, false);

  const client = Client.fromConnectionString(process.env.CONNECTION_STRING);
  const answer = (await client.invokeDeviceMethod('node', { methodName: 'read', payload: { a: 1 }, responseTimeoutInSeconds: 15 })).result;
  assert.deepStrictEqual(answer, { status: 207, payload: { name: 'read', echo: { a: 1 } } });
  await assert.rejects(client.invokeDeviceMethod('b1', { methodName: 'read' }), (err) => /not.found/i.test(err.message));
  await registry.delete('made');
  await assert.rejects(registry.get('made'), (err) => err.name === 'DeviceNotFoundError');
}

main().then(() => console.log('all of it held'), (err) => {
  console.error(err);
  process.exit(1);
});
