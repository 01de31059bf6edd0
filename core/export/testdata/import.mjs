// Has the network panel of Chromium's DevTools open an HTTP archive, as its import does, and prints what it then lists: one line of JSON.
// node import.mjs PLAYWRIGHT CHROMIUM FILE, where PLAYWRIGHT is the directory of playwright-core.
import fs from 'node:fs';
import { createRequire } from 'node:module';

const [playwright, executablePath, file] = process.argv.slice(2);
const { chromium } = createRequire(playwright + '/')(playwright);
const browser = await chromium.launch({
  executablePath,
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
try {
  const page = await browser.newPage();
  page.on('pageerror', error => console.error(String(error)));
  await page.goto('devtools://devtools/bundled/devtools_app.html');
  const requests = await page.evaluate(async text => {
    const ui = await import('./ui/legacy/legacy.js');
    const network = await import('./panels/network/network.js');
    const logs = await import('./models/logs/logs.js');
    await ui.ViewManager.ViewManager.instance().showView('network');
    await network.NetworkPanel.NetworkPanel.instance().networkLogView.onLoadFromFile(new File([text], 'archive.har'));
    const all = [];
    for (const r of logs.NetworkLog.NetworkLog.instance().requests()) {
      const body = await r.requestContentData();
      all.push({
        url: r.url(), method: r.requestMethod, status: r.statusCode, size: r.resourceSize, transferred: r.transferSize, type: r.mimeType || '', seconds: r.duration,
        began: r.issueTime(), protocol: r.protocol, remote: r.remoteAddress(), sent: (await r.requestFormData()) || '', got: body.text || '',
        requestHeaders: r.requestHeaders(), responseHeaders: r.responseHeaders,
      });
    }
    return all;
  }, fs.readFileSync(file, 'utf8'));
  console.log(JSON.stringify(requests));
} finally {
  await browser.close();
}
