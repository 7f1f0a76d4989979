// SPDX-License-Identifier: Apache-2.0
// A Node server on a descriptor that it is given as its argument.
const http = require('http')

const body = `hello from generation ${process.env.TENURE_GENERATION}\n`
http.createServer((request, response) => response.end(body)).listen({ fd: Number(process.argv[2]) })
