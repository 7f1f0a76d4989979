// SPDX-License-Identifier: Apache-2.0
// A web server that knows nothing of tenured but the environment: its sockets are descriptors 3 and
// up (LISTEN_FDS). It ends when the requests that it has are answered.
const http = require('http')

if (Number(process.env.LISTEN_PID) !== process.pid) {
  console.error('no sockets were passed to this process')
  process.exit(1)
}
const generation = process.env.TENURE_GENERATION || '0'
const servers = []
for (let fd = 3; fd < 3 + Number(process.env.LISTEN_FDS); fd++) {
  const server = http.createServer((request, response) => {
    response.setHeader('X-Tenure-Generation', generation)
    response.end(`hello from generation ${generation}\n`)
  })
  servers.push(server.listen({ fd }))
}
process.on('SIGTERM', () => servers.forEach((server) => server.close()))
