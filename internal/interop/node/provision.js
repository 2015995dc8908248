// Devices made of Microsoft's SDK that provision themselves, all at once: a JSON array of them on standard input, an array
// of what each was told on standard output, in the same order.
'use strict';
const fs = require('fs');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { X509Security } = require('azure-iot-security-x509');
const { Client, Message } = require('azure-iot-device');
const transports = {
  mqtt: require('azure-iot-provisioning-device-mqtt').Mqtt,
  mqttws: require('azure-iot-provisioning-device-mqtt').MqttWs,
  http: require('azure-iot-provisioning-device-http').Http,
};

async function provision({ host, scope, transport, id, key, cert, certKey, payload, connect }) {
  const security = key ? new SymmetricKeySecurityClient(id, key) : new X509Security(id, { cert, key: certKey });
  const client = ProvisioningDeviceClient.create(host, scope, new transports[transport](), security);
  if (payload) client.setProvisioningPayload(payload);
  const registration = await client.register();
  if (!connect) return { registration };
  // The device goes on with what it was told.
  const { Mqtt } = require('azure-iot-device-mqtt');
  const device = Client.fromConnectionString(
    `HostName=${registration.assignedHub};DeviceId=${registration.deviceId};${key ? `SharedAccessKey=${key}` : 'x509=true'}`, Mqtt);
  if (cert) await device.setOptions({ cert, key: certKey });
  await device.open();
  const twin = await device.getTwin();
  await device.sendEvent(new Message(`from ${registration.deviceId}`));
  await device.close();
  return { registration, desired: twin.properties.desired };
}

async function main() {
  const devices = JSON.parse(fs.readFileSync(0, 'utf8'));
  const told = await Promise.all(devices.map(async (d) => {
    try {
      return await provision(d);
    } catch (err) {
      const said = err.result || err.responseBody;
      return { error: err.name, message: err.message, said: typeof said === 'string' ? said : JSON.stringify(said) };
    }
  }));
  process.stdout.write(JSON.stringify(told));
}

main().then(() => process.exit(0), (err) => {
  console.error(err);
  process.exit(1);
});
