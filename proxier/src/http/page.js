'use strict';
// Keeps the page up to date without losing where the reader is, and draws how the rates go. All of the
// page can be read without this.
(() => {
  const KEPT = 30, ROWS = 200, TRENDS = 'trends', WIDTH = 60, HEIGHT = 14;
  const pause = document.getElementById('pause');
  let paused = false, timer = 0, asking = 0, failed = '';

  // Makes an element like another one, as far as it is not, so that what has the focus stays.
  const become = (old, now) => {
    if (old.nodeType !== now.nodeType || old.nodeName !== now.nodeName || old.id !== now.id) {
      old.replaceWith(document.importNode(now, true));
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== now.data) old.data = now.data;
      return;
    }
    if (old === pause || old.classList.contains('trend')) return;
    for (const { name } of [...old.attributes]) if (!now.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of now.attributes) {
      if (name !== 'nonce' && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const [before, after] = [[...old.childNodes], [...now.childNodes]];
    after.forEach((child, at) => {
      if (at < before.length) become(before[at], child);
      else old.append(document.importNode(child, true));
    });
    before.slice(after.length).forEach(child => child.remove());
  };

  const history = JSON.parse(sessionStorage.getItem(TRENDS) ?? '{}');
  const trends = () => {
    for (const row of document.querySelectorAll('tr[data-connections]')) {
      const known = history[row.dataset.key] ?? [];
      delete history[row.dataset.key];
      known.push([Number(row.dataset.connections), Number(row.dataset.bytes)]);
      history[row.dataset.key] = known.slice(-KEPT);
    }
    Object.keys(history).slice(0, -ROWS).forEach(key => delete history[key]);
    sessionStorage.setItem(TRENDS, JSON.stringify(history));
    for (const svg of document.querySelectorAll('svg.trend')) {
      const key = svg.closest('tr').dataset.key;
      const values = (history[key] ?? []).map(both => both[svg.dataset.of === 'bytes' ? 1 : 0]);
      const most = Math.max(...values);
      if (values.length < 2 || most === 0) {
        svg.replaceChildren();
        continue;
      }
      const step = WIDTH / (KEPT - 1), first = KEPT - values.length;
      const point = (value, at) =>
        `${((first + at) * step).toFixed(1)},${(HEIGHT - 1 - (value / most) * (HEIGHT - 2)).toFixed(1)}`;
      const line = svg.firstChild ?? document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
      line.setAttribute('points', values.map(point).join(' '));
      if (!svg.firstChild) svg.append(line);
    }
  };

  const say = () => {
    const every = Number(document.body.dataset.refresh);
    const fresh = document.getElementById('fresh');
    const how = failed || (paused ? ', paused' : every > 0 ? `, every ${every} s` : '');
    fresh.lastChild.nodeName === 'I' && fresh.lastChild.remove();
    const note = document.createElement('i');
    note.textContent = how;
    fresh.append(note);
    fresh.classList.toggle('bad', failed !== '');
    pause.hidden = !(every > 0);
    pause.textContent = paused ? 'Go on' : 'Pause';
  };

  const look = async address => {
    const mine = ++asking;
    try {
      const answer = await fetch(address, { cache: 'no-store', credentials: 'same-origin' });
      if (!answer.ok) throw new Error(answer.status);
      // Its style is that of this page; with another nonce it would be a violation of the policy.
      const text = (await answer.text()).replace(/<style[^]*?<\/style>/, '');
      const now = new DOMParser().parseFromString(text, 'text/html');
      if (mine !== asking) return;
      failed = '';
      document.title = now.title;
      document.body.dataset.refresh = now.body.dataset.refresh;
      for (const part of ['header', 'main']) become(document.querySelector(part), now.querySelector(part));
      trends();
    } catch {
      if (mine !== asking) return;
      failed = ', no answer since then';
    }
    say();
    wait();
  };

  const wait = () => {
    clearTimeout(timer);
    const every = Number(document.body.dataset.refresh);
    if (every > 0 && !paused) {
      timer = setTimeout(() => document.hidden ? wait() : look(location.href), every * 1000);
    }
  };

  const go = address => {
    window.history.pushState(null, '', address);
    look(address);
  };
  document.addEventListener('click', event => {
    const link = event.target.closest('a[href^="/status?"], a[href="/status"]');
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(link.href.split('#')[0]);
  });
  document.addEventListener('submit', event => {
    event.preventDefault();
    const fields = [...new FormData(event.target)].filter(([, value]) => value !== '');
    go('/status?' + new URLSearchParams(fields));
  });
  document.addEventListener('change', event => {
    if (event.target.matches('select')) event.target.form.requestSubmit();
  });
  window.addEventListener('popstate', () => look(location.href));
  pause.addEventListener('click', () => {
    paused = !paused;
    say();
    wait();
  });
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden && !paused && Number(document.body.dataset.refresh) > 0) look(location.href);
  });
  trends();
  say();
  wait();
})();
