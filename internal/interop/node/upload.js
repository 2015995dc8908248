// A device made of Microsoft's SDK that uploads files, and @azure/storage-blob as it is now beside the version that the SDK
// brings along. CONNECTION_STRING is the device's; PLAN is JSON: {"files": [{"path", "name", "how"}]}, where how is "sdk"
// (uploadToBlob) or "storage" (getBlobSharedAccessSignature, @azure/storage-blob, notifyBlobUploadStatus); "refusals",
// whether to provoke those of the hub's own endpoint; "fails", a file whose upload does. It asserts by itself.
'use strict';
const assert = require('assert');
const fs = require('fs');
const { Client } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const { BlockBlobClient } = require('@azure/storage-blob');

const plan = JSON.parse(process.env.PLAN);
const client = Client.fromConnectionString(process.env.CONNECTION_STRING, Mqtt);
const blockSize = 4 * 1024 * 1024;
const id = (n) => Buffer.from(String(n).padStart(6, '0')).toString('base64');

async function begin(name) {
  const info = await client.getBlobSharedAccessSignature(name);
  const encoded = info.blobName.split('/').map(encodeURIComponent).join('/');
  return { info, blob: new BlockBlobClient(`https://${info.hostName}/${info.containerName}/${encoded}${info.sasToken}`) };
}

const finish = ({ info }) => client.notifyBlobUploadStatus(info.correlationId, true, 201, 'Created');

async function read(blob, ...range) {
  const chunks = [];
  for await (const chunk of (await blob.download(...range)).readableStreamBody) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const uploads = {
  async sdk({ path, name }) {
    await client.uploadToBlob(name, fs.createReadStream(path), fs.statSync(path).size);
  },
  async storage({ path, name }) {
    const upload = await begin(name);
    const content = fs.readFileSync(path);
    await upload.blob.uploadFile(path, { blockSize, maxSingleShotSize: blockSize, blobHTTPHeaders: { blobContentType: 'text/x-test' }, metadata: { unit: 'celsius' } });
    const properties = await upload.blob.getProperties();
    assert.strictEqual(properties.contentLength, content.length);
    assert.strictEqual(properties.contentType, 'text/x-test');
    assert.strictEqual(properties.metadata.unit, 'celsius');
    assert.strictEqual(properties.blobType, 'BlockBlob');
    if (content.length > 0) {
      assert.ok((await read(upload.blob, 0)).equals(content), `${name}: read back`);
      const from = content.length >> 1;
      assert.ok((await read(upload.blob, from, 10)).equals(content.subarray(from, from + 10)), `${name}: a range`);
    }
    const list = await upload.blob.getBlockList('all');
    const expected = content.length > blockSize ? Math.ceil(content.length / blockSize) : 0;
    assert.strictEqual((list.committedBlocks || []).length, expected, `${name}: committed blocks`);
    assert.strictEqual((list.uncommittedBlocks || []).length, 0);
    await finish(upload);
  },
};

const refused = (promise, code, status) => assert.rejects(promise, (err) => {
  assert.strictEqual(err.code || err.details.errorCode, code, `${err.name} ${err.statusCode} ${err.message}`);
  assert.strictEqual(err.statusCode, status);
  return true;
});

async function refusals() {
  const upload = await begin('refusals');
  const { blob, info } = upload;
  await refused(blob.getProperties(), 'BlobNotFound', 404);
  await refused(blob.download(), 'BlobNotFound', 404);
  await refused(blob.delete(), 'AuthorizationPermissionMismatch', 403);
  await refused(new BlockBlobClient(blob.url.replace('refusals', 'other')).upload('x', 1), 'AuthenticationFailed', 403);
  await refused(new BlockBlobClient(blob.url.split('?')[0]).upload('x', 1), 'NoAuthenticationInformation', 401);
  await refused(blob.commitBlockList([id(1)]), 'InvalidBlockList', 400);
  await blob.stageBlock(id(1), 'one', 3);
  await refused(blob.stageBlock(Buffer.from('longer than the other').toString('base64'), 'x', 1), 'InvalidBlobOrBlock', 400);
  const mismatch = await blob.stageBlock(id(2), 'two', 3, { transactionalContentMD5: Buffer.from('uKnnllQ/1FRg0ERu8HF6ig==', 'base64') }).catch((err) => err);
  assert.strictEqual(mismatch.code, 'Md5Mismatch');
  await blob.stageBlock(id(2), 'two', 3);
  assert.deepStrictEqual((await blob.getBlockList('uncommitted')).uncommittedBlocks.map((b) => [b.name, b.size]), [[id(1), 3], [id(2), 3]]);
  const { etag } = await blob.commitBlockList([id(2), id(1)]);
  assert.strictEqual((await read(blob)).toString(), 'twoone');
  await refused(blob.upload('x', 1, { conditions: { ifNoneMatch: '*' } }), 'BlobAlreadyExists', 409);
  await blob.upload('new', 3, { conditions: { ifMatch: etag } });
  await refused(blob.commitBlockList([], { conditions: { ifMatch: etag } }), 'ConditionNotMet', 412);
  await finish(upload);
  await assert.rejects(client.notifyBlobUploadStatus(info.correlationId, true, 201, ''), (err) => err.message === 'Bad Request');
  await assert.rejects(client.notifyBlobUploadStatus('unknown', true, 201, ''), (err) => err.message === 'Bad Request');
}

async function main() {
  for (const file of plan.files) await uploads[file.how](file);
  if (plan.refusals) await refusals();
  if (plan.fails) {
    await assert.rejects(uploads.sdk(plan.fails), (err) => err.name === 'BlobUploadNotificationError' && err.message === 'UploadToBlob failed.');
  }
}

main().then(() => {
  console.log('all of it held');
  process.exit(0); // the SDK keeps connections
}, (err) => {
  console.error(err);
  process.exit(1);
});
