// The page: asks what is served, then lets its two sections work with that.

import { describeModel } from "./api.js";
import { BurstSection } from "./burst-section.js";
import { ClassifySection } from "./classify-section.js";
import { byId } from "./dom.js";
import { showFailure, showModel } from "./model.js";

const burstSection = new BurstSection();
const classifySection = new ClassifySection((images) => burstSection.choose(images));

async function load() {
  try {
    const model = await describeModel();
    showModel(model);
    classifySection.use(model);
    burstSection.use(model);
  } catch (error) {
    showFailure(error, load);
  }
}

byId("curl").textContent = `curl --data-binary @photo.jpg ${new URL("v1/classify", document.baseURI)}`;
load();
