// A service made of Microsoft's SDK that does what it is told: one JSON object a line on standard input,
// {"id":1,"do":"registry","method":"getTwin","arguments":["dev1"]}, answered on standard output by {"id":1,"result":…} or
// {"id":1,"error":"Name: message"}. The connection string is in CONNECTION_STRING.
'use strict';
const readline = require('readline');
const { Registry, Client } = require('azure-iothub');

const registry = Registry.fromConnectionString(process.env.CONNECTION_STRING);
const client = Client.fromConnectionString(process.env.CONNECTION_STRING);
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');

const commands = {
  async registry({ method, arguments: list }) {
    const { responseBody } = await registry[method](...list);
    if (responseBody && responseBody.toJSON) return responseBody.toJSON(); // a twin holds its registry as well
    return responseBody;
  },
  // query gives every page; twins are asked for as such.
  async query({ text, size, twins }) {
    const query = registry.createQuery(text, size);
    const pages = [];
    while (query.hasMoreResults && pages.length < 100) {
      const page = await (twins ? query.nextAsTwin() : query.next());
      pages.push(twins ? page.result.map((t) => t.toJSON()) : page.result);
    }
    return pages;
  },
  async invoke({ device, module, parameters }) {
    const { result } = module ? await client.invokeDeviceMethod(device, module, parameters) : await client.invokeDeviceMethod(device, parameters);
    return result;
  },
};

const input = readline.createInterface({ input: process.stdin });
input.on('line', async (line) => {
  const command = JSON.parse(line);
  try {
    const result = await commands[command.do](command);
    say({ id: command.id, result: result === undefined ? null : result });
  } catch (err) {
    say({ id: command.id, error: `${err.name}: ${err.message}` });
  }
});
input.on('close', () => process.exit(0));
