// The service side of provisioning, made of Microsoft's SDK: enrollments, groups, bulk, queries and registrations, each
// asserted. The connection string is in CONNECTION_STRING; the device "mqtt-group" has registered with the group "keys".
'use strict';
const assert = require('assert');
const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');

async function main() {
  const client = ProvisioningServiceClient.fromConnectionString(process.env.CONNECTION_STRING);
  const enrollment = (id) => ({ registrationId: id, attestation: { type: 'symmetricKey' }, provisioningStatus: 'enabled' });

  const made = (await client.createOrUpdateIndividualEnrollment({
    ...enrollment('made'), deviceId: 'made-device', initialTwin: { tags: { site: 'north' }, properties: { desired: { interval: 7 } } },
  })).responseBody;
  assert.ok(made.attestation.symmetricKey.primaryKey, 'keys are generated');
  assert.strictEqual(made.initialTwin.properties.desired.interval, 7);
  await assert.rejects(client.createOrUpdateIndividualEnrollment(enrollment('made')), (err) => err.response.statusCode === 409);
  const got = (await client.getIndividualEnrollment('made')).responseBody;
  assert.strictEqual(got.deviceId, 'made-device');
  assert.strictEqual(got.attestation.symmetricKey, undefined);
  const mechanism = (await client.getIndividualEnrollmentAttestationMechanism('made')).responseBody;
  assert.deepStrictEqual(mechanism.symmetricKey, made.attestation.symmetricKey);
  const updated = (await client.createOrUpdateIndividualEnrollment({ ...got, provisioningStatus: 'disabled' })).responseBody;
  assert.strictEqual(updated.provisioningStatus, 'disabled');
  assert.notStrictEqual(updated.etag, got.etag);
  await assert.rejects(client.createOrUpdateIndividualEnrollment(got), (err) => err.response.statusCode === 412);
  await assert.rejects(client.deleteIndividualEnrollment(got), (err) => err.response.statusCode === 412);
  await client.deleteIndividualEnrollment(updated);
  await assert.rejects(client.getIndividualEnrollment('made'), (err) => err.response.statusCode === 404 && /404201/.test(err.responseBody));

  // Without a callback this one never answers.
  await new Promise((resolve, reject) => client.runBulkEnrollmentOperation(
    { mode: 'create', enrollments: ['c1', 'c2'].map(enrollment) }, (err, result) => {
      if (err) return reject(err);
      assert.ok(result.isSuccessful, JSON.stringify(result));
      resolve();
    }));

  const query = client.createIndividualEnrollmentQuery({ query: '*' }, 2);
  const ids = [];
  do {
    // Without the token a promise's next begins anew.
    ids.push(...(await query.next(query.continuationToken)).responseBody.map((e) => e.registrationId));
    assert.ok(ids.length < 100, 'the pages end');
  } while (query.hasMoreResults);
  assert.deepStrictEqual(ids.filter((id) => /^c\d$/.test(id)), ['c1', 'c2']);

  const group = (await client.createOrUpdateEnrollmentGroup({
    enrollmentGroupId: 'made-group', attestation: { type: 'x509', x509: { signingCertificates: { primary: { certificate: process.env.CA } } } },
  })).responseBody;
  assert.strictEqual(group.attestation.x509.signingCertificates.primary.info.subjectName, 'CN=root');
  assert.strictEqual((await client.getEnrollmentGroup('made-group')).responseBody.etag, group.etag);
  assert.strictEqual((await client.getEnrollmentGroupAttestationMechanism('keys')).responseBody.type, 'symmetricKey');
  const groups = (await client.createEnrollmentGroupQuery({ query: 'SELECT * FROM enrollmentGroups' }, 10).next()).responseBody;
  assert.ok(groups.some((g) => g.enrollmentGroupId === 'made-group'));
  const again = (await client.getEnrollmentGroup('made-group')).responseBody;
  const changed = (await client.createOrUpdateEnrollmentGroup({ ...again, provisioningStatus: 'disabled' })).responseBody;
  assert.strictEqual(changed.attestation.x509.signingCertificates.primary.info.subjectName, 'CN=root', 'the certificate stays');
  await client.deleteEnrollmentGroup(changed);

  const state = (await client.getDeviceRegistrationState('mqtt-group')).responseBody;
  assert.strictEqual(state.status, 'assigned');
  const states = (await client.createEnrollmentGroupDeviceRegistrationStateQuery({ query: '*' }, 'keys', 10).next()).responseBody;
  assert.ok(states.some((s) => s.registrationId === 'mqtt-group'));
  await client.deleteDeviceRegistrationState(state);
  await assert.rejects(client.getDeviceRegistrationState('mqtt-group'), (err) => err.response.statusCode === 404);
}

main().then(() => {
  console.log('all of it held');
  process.exit(0);
}, (err) => {
  console.error(err);
  process.exit(1);
});
