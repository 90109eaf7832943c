"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const [photo, restore, download, bar, preview, slider, cut] = ["photo", "restore", "download", "progress", "preview", "slider", "cut"].map(byId);
  const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  let file = null, turn = 0;                     // turn: number of the photo or run; what an earlier one still says is ignored

  function say(text, bad = false) {
    byId("status").textContent = text;
    byId("status").className = bad ? "bad" : "";
  }

  function busy(value, label = "") {
    restore.disabled = !file || value;
    bar.hidden = !value;
    bar.removeAttribute("value");
    if (label) say(label);
  }

  function choose(chosen) {
    if (!chosen) return;
    turn += 1;
    file = chosen;
    byId("name").textContent = file.name;
    byId("empty").hidden = slider.hidden = download.hidden = true;
    URL.revokeObjectURL(preview.src);
    preview.hidden = false;
    preview.src = URL.createObjectURL(file);
    busy(false);
    say("");
    const most = Number(byId("megabytes").textContent);
    if (file.size > most * 2 ** 20) {
      say(`This file has ${Math.ceil(file.size / 2 ** 20)} MB; ${most} MB is the limit.`, true);
      restore.disabled = true;
    }
  }

  preview.addEventListener("load", () => say(`${preview.naturalWidth} × ${preview.naturalHeight} pixels.`));
  preview.addEventListener("error", () => {
    preview.hidden = true;
    byId("empty").hidden = false;
    byId("empty").textContent = "The browser cannot show this file before it is restored.";
  });

  function place() {
    slider.style.setProperty("--cut", `${cut.value}%`);
  }

  async function answered(address, options) {
    let answer;
    try {
      answer = await fetch(address, options);
    } catch {
      throw new Error("The server does not answer.");
    }
    if (!answer.ok) throw new Error((await answer.text()).trim());
    return answer.json();
  }

  async function run() {
    const mine = ++turn, name = file.name.replace(/\.[^.]*$/, "");
    download.hidden = true;
    busy(true, "sending the photo");
    try {
      const { key } = await answered(`/photos?weights=${encodeURIComponent(byId("weights").value)}`, { method: "POST", body: file });
      let job;
      for (;;) {
        job = await answered(`/photos/${key}`);
        if (mine !== turn) return;
        if (job.state === "done" || job.state === "failed") break;
        if (job.state === "waiting") say(job.ahead === 1 ? "1 photo is before this one" : `${job.ahead} photos are before this one`);
        else say(job.tiles > 1 ? `restoring: ${job.done} of ${job.tiles} tiles` : "restoring");
        if (job.tiles > 1) { bar.max = job.tiles; bar.value = job.done; }
        await pause(300);
      }
      if (job.state === "failed") throw new Error(job.text);
      byId("before").src = `/photos/${key}/before.png`;
      byId("after").src = `/photos/${key}/after.png`;
      await Promise.all([byId("before").decode(), byId("after").decode()]);
      if (mine !== turn) return;
      preview.hidden = byId("empty").hidden = true;
      slider.hidden = false;
      cut.value = 50;
      place();
      download.href = `/photos/${key}/restored.png`;
      download.download = `${name}-restored.png`;
      download.hidden = false;
      busy(false);
      say(`${job.text} Drag the line to compare.`);
    } catch (error) {
      if (mine !== turn) return;
      busy(false);
      say(error.message, true);
    }
  }

  photo.addEventListener("change", () => choose(photo.files[0]));
  cut.addEventListener("input", place);
  byId("form").addEventListener("submit", (event) => { event.preventDefault(); run(); });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop") choose(event.dataTransfer.files[0]);
    });
  }
})();
