startTheme();
startFiles();
startCharts();
startFront();
