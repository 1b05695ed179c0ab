// What a stem of Node.js rehearses with: a function as most are.
'use strict';

const path = require('path');

exports.main = async (args, context) => {
  console.log('rehearsal %s', args.a);
  return { name: path.basename(__filename), args, left: context.remainingMs() };
};
